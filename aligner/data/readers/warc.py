"""Format `warc`: archives of crawled pages (ISO 28500), as Common Crawl's."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from aligner.data.readers.files import read_bytes
from aligner.data.readers.html import missing_library, page_row
from aligner.data.readers.records import fault
from aligner.data.rows import Document, Dropped, Origin
from aligner.errors import at

if TYPE_CHECKING:
    from warcio.recordloader import ArcWarcRecord

PAGES = ("text/html", "application/xhtml+xml")


def read_warc(path: Path) -> Iterator[Document | Dropped]:
    """A document a response; `Origin.line` is the index from 1 among all the archive's records.

    Dropped, by name: `no_page` (an error, or no HTML), `no_main_text`. Requests and notes of the crawler are no rows.
    Raises `DataError` where the archive is damaged or cut, or where warcio or trafilatura is not installed.
    """
    for number, record in _records(path):
        if record.rec_type == "response":
            origin = Origin(str(path), number)
            page = _page(record, origin)
            yield Dropped(origin, "no_page") if page is None else page_row(origin, page)


def _records(path: Path) -> Iterator[tuple[int, ArcWarcRecord]]:
    try:
        from warcio.archiveiterator import ArchiveIterator
    except ImportError as error:
        raise missing_library(path, error) from error
    number = 0
    try:
        for number, record in enumerate(ArchiveIterator(io.BytesIO(read_bytes(path))), start=1):
            yield number, record
    except Exception as error:  # warcio has one of its own, and lets out whatever else it stumbles over
        what = f"not a WARC record ({type(error).__name__}: {error})"
        raise fault(at(path, number + 1), what, "fetch the file again") from error


def _page(record: ArcWarcRecord, origin: Origin) -> bytes | None:
    """The body of a response that is a page, unpacked; None of any other."""
    body = record.content_stream().read()
    short = getattr(
        record.raw_stream, "limit", None
    )  # the stream of a record without a length has no end of its own
    if short is None or short > 0:
        what = "the record has no length" if short is None else f"the record is cut ({short} bytes short)"
        raise fault(origin, what, "fetch the file again")
    http = record.http_headers
    if http is None or http.get_statuscode() != "200":
        return None
    kind = (http.get_header("Content-Type") or "").split(";")[0].strip().lower()
    return bytes(body) if kind in PAGES else None
