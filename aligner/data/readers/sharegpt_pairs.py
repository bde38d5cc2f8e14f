"""Format `sharegpt_pairs`: {"conversations", "chosen", "rejected"} rows, LLaMA-Factory's form of preference data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from aligner.data.readers.pairs import pair_row
from aligner.data.readers.records import Record, fault
from aligner.data.rows import Dropped, Pair, Turn

_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}


def read_sharegpt_pairs(record: Record) -> Iterator[Pair | Dropped]:
    """One pair a row: the conversation ({"from", "value"} turns, the last one the human's) and two answers to it.

    An answer is a string or one such turn of the assistant's. Drops as in `pairs`.
    """
    turns = tuple(_turn(message) for message in record.records("conversations"))
    if not turns or turns[-1].role != "user":
        what = f"ends with a {turns[-1].role} turn" if turns else "is empty"
        raise fault(record.origin, f'"conversations" {what}', "end the prompt with a human turn")
    answers = [_answer(record, key) for key in ("chosen", "rejected")]
    kind = record.text("kind", default="")
    yield pair_row(record.origin, turns, *answers, margin=record.number("margin"), kind=kind)


def _turn(message: Record) -> Turn:
    name = message.text("from")
    if name not in _ROLES:
        raise fault(message.origin, f'unknown speaker "{name}"', f"valid: {', '.join(_ROLES)}")
    return Turn(_ROLES[name], message.text("value").strip())


def _answer(record: Record, key: str) -> str:
    value = record.value.get(key)
    if not isinstance(value, dict):
        return record.text(key)
    turn = _turn(Record(record.origin, value))
    if turn.role != "assistant":
        raise fault(record.origin, f'"{key}" is a {turn.role} turn', "give the assistant's answer")
    return turn.content
