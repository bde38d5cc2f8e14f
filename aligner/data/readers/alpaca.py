"""Format `alpaca`: {"instruction", "input", "output"} rows, as in Stanford Alpaca."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.records import Record, fault
from aligner.data.rows import Conversation, Dropped, Origin, Turn

NO_INPUT = ("", "<noinput>", "no input")  # the generator of Alpaca wrote "nothing" in several ways


def read_alpaca(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation a row: instruction, blank line, input → output. Empty outputs are `empty_answer`."""
    family = record.text("family", default="alpaca")
    yield instruction_row(
        record.origin,
        record.text("instruction"),
        record.text("input", default=""),
        record.text("output"),
        family,
    )


def instruction_row(
    origin: Origin, instruction: str, context: str, answer: str, family: str
) -> Conversation | Dropped:
    """An instruction with an optional input, answered."""
    question, answer = instruction_turn(origin, instruction, context), answer.strip()
    if not answer:
        return Dropped(origin, "empty_answer")
    return Conversation(origin, (question, Turn("assistant", answer)), family)


def instruction_turn(origin: Origin, instruction: str, context: str) -> Turn:
    """An instruction and, after a blank line, its input, if it has one; `DataError` where there is no instruction."""
    instruction, context = instruction.strip(), context.strip()
    if not instruction:
        raise fault(origin, '"instruction" is empty', "write the instruction, or delete the row")
    bare = context.lower().rstrip(".") in NO_INPUT
    return Turn("user", instruction if bare else f"{instruction}\n\n{context}")
