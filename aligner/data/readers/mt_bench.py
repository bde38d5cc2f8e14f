"""Format `mt_bench`: {"question_id", "category", "turns"} rows (Zheng et al. 2023, arXiv:2306.05685)."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.records import Record, fault
from aligner.data.rows import Prompt, Turn


def read_mt_bench(record: Record) -> Iterator[Prompt]:
    """One prompt a row: the first question; what is asked next needs a model's own answer before it."""
    questions = record.texts("turns")
    if not questions or not questions[0].strip():
        raise fault(record.origin, '"turns" has no first question', "write the question, or delete the row")
    yield Prompt(record.origin, (Turn("user", questions[0].strip()),), record.text("category", default=""))
