"""Format `alpaca`: {"instruction", "input", "output"} rows, as in Stanford Alpaca, and what others made of them."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.records import Record, fault, kind_of
from aligner.data.rows import Conversation, Dropped, Origin, Turn

NO_INPUT = ("", "<noinput>", "no input")  # the generator of Alpaca wrote "nothing" in several ways


def read_alpaca(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation a row: system text, earlier turns, instruction, blank line, input → output.

    The answer may stand under "response" (GPTeacher), a system text under "system" (LLaMA-Factory), earlier turns as
    [question, answer] under "history" (LIMA).
    Empty outputs are `empty_answer`, an earlier turn without text is `empty_turn`.
    """
    answer_key = "response" if "response" in record.value and "output" not in record.value else "output"
    yield instruction_row(
        record.origin,
        record.text("instruction"),
        record.text("input", default=""),
        record.text(answer_key),
        record.text("family", default="alpaca"),
        earlier=earlier_turns(record),
    )


def earlier_turns(record: Record) -> tuple[Turn, ...]:
    """The text at "system", if any, and the exchanges of "history", whitespace around the texts stripped."""
    system = record.text("system", default="").strip()
    exchanges = record.value.get("history") or []
    if not isinstance(exchanges, list):
        remedy = 'give "history" a list of [question, answer], or leave it out'
        raise fault(record.origin, f'"history" is {kind_of(exchanges)}', remedy)
    turns = [Turn("system", system)] if system else []
    for index, exchange in enumerate(exchanges):
        if not isinstance(exchange, list) or len(exchange) != 2:
            what = f'"history"[{index}] is not [question, answer]'
            raise fault(record.origin, what, "give each earlier turn as [question, answer]")
        question, answer = Record(record.origin, {"history": exchange}).texts("history")
        turns += [Turn("user", question.strip()), Turn("assistant", answer.strip())]
    return tuple(turns)


def instruction_row(
    origin: Origin,
    instruction: str,
    context: str,
    answer: str,
    family: str,
    *,
    earlier: tuple[Turn, ...] = (),
    classification: bool | None = None,
) -> Conversation | Dropped:
    """An instruction with an optional input, answered; `classification`: whether it is one, where that is said."""
    question, answer = instruction_turn(origin, instruction, context), answer.strip()
    if not answer:
        return Dropped(origin, "empty_answer")
    if not all(turn.content for turn in earlier):
        return Dropped(origin, "empty_turn")
    return Conversation(
        origin,
        (*earlier, question, Turn("assistant", answer)),
        family,
        instruction_chars=len(instruction.strip()),
        classification=classification,
    )


def instruction_turn(origin: Origin, instruction: str, context: str) -> Turn:
    """An instruction and, after a blank line, its input, if it has one; `DataError` where there is no instruction."""
    instruction, context = instruction.strip(), context.strip()
    if not instruction:
        raise fault(origin, '"instruction" is empty', "write the instruction, or delete the row")
    bare = context.lower().rstrip(".") in NO_INPUT
    return Turn("user", instruction if bare else f"{instruction}\n\n{context}")
