"""Format `dolly`: {"instruction", "context", "response", "category"} rows, as in Databricks' Dolly 15k."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.alpaca import instruction_row
from aligner.data.readers.records import Record
from aligner.data.rows import Conversation, Dropped


def read_dolly(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation a row: instruction, blank line, context → response; the category is the family.

    Empty responses are `empty_answer`.
    """
    yield instruction_row(
        record.origin,
        record.text("instruction"),
        record.text("context", default=""),
        record.text("response"),
        record.text("category", default="dolly"),
    )
