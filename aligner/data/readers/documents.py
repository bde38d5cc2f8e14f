"""Format `documents`: {"text"} rows."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.records import Record
from aligner.data.rows import Document, Dropped


def read_documents(record: Record) -> Iterator[Document | Dropped]:
    """One document a row; rows without text are dropped as `empty_document`."""
    text = record.text("text").strip()
    yield Document(record.origin, text=text) if text else Dropped(record.origin, "empty_document")
