"""Format `belle`: {"question", "std_answer", "class"} rows, the evaluation set of BELLE (arXiv:2304.07854)."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.records import Record, fault
from aligner.data.rows import Conversation, Prompt, Turn


def read_belle(record: Record) -> Iterator[Conversation | Prompt]:
    """One conversation a row, question → reference answer; a prompt where there is no reference answer."""
    question, answer = record.text("question").strip(), record.text("std_answer", default="").strip()
    if not question:
        raise fault(record.origin, '"question" is empty', "write the question, or delete the row")
    family, asked = record.text("class", default="belle"), (Turn("user", question),)
    if answer:
        yield Conversation(record.origin, (*asked, Turn("assistant", answer)), family)
    else:
        yield Prompt(record.origin, asked, family)
