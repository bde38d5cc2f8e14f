"""Format `aqua`: {"question", "options", "rationale", "correct"} of algebra (Ling et al. 2017, arXiv:1705.04146)."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.questions import answered, right_letter, with_options, worked
from aligner.data.readers.records import Record
from aligner.data.rows import Conversation, Dropped


def read_aqua(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation a row: question and options → the rationale and "The answer is B.".

    A row without a rationale is `empty_rationale`.
    """
    # "B)6000": the letter is written anew, in the form that all formats share
    options = [
        option.strip().removeprefix(f"{chr(ord('A') + index)})")
        for index, option in enumerate(record.texts("options"))
    ]
    question = with_options(record.origin, record.text("question"), options)
    letter = right_letter(record.origin, record.text("correct"), options)
    rationale = record.text("rationale").strip()
    if not rationale:
        yield Dropped(record.origin, "empty_rationale")
    else:
        yield answered(record.origin, question, worked(rationale, letter), "aqua")
