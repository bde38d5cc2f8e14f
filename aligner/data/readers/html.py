"""Format `html`: web pages as documents, their main text alone (trafilatura, Barbaresi 2021, ACL demos)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aligner.data.readers.files import read_bytes
from aligner.data.readers.records import fault
from aligner.data.rows import Document, Dropped, Origin
from aligner.errors import DataError, at

EXTRA = 'pip install "aligner[data]"'


def read_html(path: Path) -> Iterator[Document | Dropped]:
    """The page's main text as one document, or `no_main_text`; `DataError` where trafilatura is not installed."""
    yield page_row(Origin(str(path), 1), read_bytes(path))


def page_row(origin: Origin, page: bytes) -> Document | Dropped:
    """A page's main text: no menus, no footers, no readers' comments; rather too little than too much."""
    try:
        from trafilatura import extract
    except ImportError as error:
        raise missing_library(Path(origin.path), error) from error
    text = extract(page, include_comments=False, favor_precision=True)
    return Document(origin, text=text.strip()) if text and text.strip() else Dropped(origin, "no_main_text")


def missing_library(path: Path, error: ImportError) -> DataError:
    """The error of a file that needs a library of the extra `data`."""
    return fault(at(path), f"a library that reads this file is missing ({error})", EXTRA)
