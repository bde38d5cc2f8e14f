"""Format `mmlu`: question, four options, the right letter (Hendrycks et al. 2021, arXiv:2009.03300)."""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_uppercase

from aligner.data.readers.questions import answered, right_letter, with_options
from aligner.data.readers.records import Record, fault
from aligner.data.readers.tables import Columns
from aligner.data.rows import Conversation, Dropped

OPTIONS = ("A", "B", "C", "D")
COLUMNS = Columns(
    ("question", *OPTIONS, "answer"), lambda cells: len(cells) == 6 and cells[-1].strip() in OPTIONS
)


def read_mmlu(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation a row: question and options → the letter of the right one.

    A row is one of the original tables (question, A, B, C, D, answer), or as on the Hub: {"question", "choices",
    "answer": index from 0}. The family is the subject, where the row has one.
    """
    if "choices" in record.value:
        options = record.texts("choices")
        letter = _letter_of(record, len(options))
    else:
        options, letter = [record.text(key) for key in OPTIONS], record.text("answer")
    question = with_options(record.origin, record.text("question"), options)
    family = record.text("subject", default="") or "mmlu"
    yield answered(record.origin, question, right_letter(record.origin, letter, options), family)


def _letter_of(record: Record, count: int) -> str:
    index = record.number("answer")
    if index is None or index not in range(min(count, len(ascii_uppercase))):
        remedy = "give the index of the right choice, from 0"
        raise fault(record.origin, f'"answer" is {index}, and there are {count} choices', remedy)
    return ascii_uppercase[int(index)]
