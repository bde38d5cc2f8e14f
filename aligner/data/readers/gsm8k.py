"""Format `gsm8k`: {"question", "answer"} rows of worked arithmetic (Cobbe et al. 2021, arXiv:2110.14168)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from aligner.data.readers.records import Record, fault
from aligner.data.rows import Conversation, Turn

_CALCULATOR = re.compile(r"<<[^<>]*>>")  # "48/2 = <<48/2=24>>24": notes for a calculator, not for a reader
_FINAL = re.compile(r"^####[ \t]*\S", re.MULTILINE)


def read_gsm8k(record: Record) -> Iterator[Conversation]:
    """One conversation a row: the question → the worked steps and the last line "#### number"."""
    question, answer = record.text("question").strip(), _CALCULATOR.sub("", record.text("answer")).strip()
    if not question:
        raise fault(record.origin, '"question" is empty', "write the question, or delete the row")
    if not _FINAL.search(answer):
        raise fault(
            record.origin, '"answer" has no line "#### number"', 'end the answer with a line like "#### 42"'
        )
    yield Conversation(record.origin, (Turn("user", question), Turn("assistant", answer)), "gsm8k")
