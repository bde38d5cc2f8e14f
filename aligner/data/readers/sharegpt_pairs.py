"""Format `sharegpt_pairs`: {"conversations", "chosen", "rejected"} rows, LLaMA-Factory's form of preference data."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.pairs import pair_row
from aligner.data.readers.records import Record, fault
from aligner.data.readers.sharegpt import sharegpt_turn, sharegpt_turns
from aligner.data.readers.tool_calls import in_order
from aligner.data.rows import Dropped, Pair, Turn


def read_sharegpt_pairs(record: Record) -> Iterator[Pair | Dropped]:
    """One pair a row: the conversation as in `sharegpt`, the last turn not the model's, and two answers to it.

    An answer is a string or one such turn of the assistant's. Drops as in `pairs`; further ones: `tool_calls` (tools
    or calls that cannot be read, or an answer that is a call), `roles_out_of_order`.
    """
    turns = sharegpt_turns(record)
    answers = [_answer(record, key) for key in ("chosen", "rejected")]
    if turns and turns[-1].role not in ("user", "tool"):
        what = f'"conversations" ends with a {turns[-1].role} turn'
        raise fault(record.origin, what, "end the prompt with a human turn")
    texts = [answer.content for answer in answers if answer and not answer.tool_calls]
    if turns is None or len(texts) < len(answers):
        yield Dropped(record.origin, "tool_calls")
    elif not in_order((*turns, Turn("assistant", ""))):
        yield Dropped(record.origin, "roles_out_of_order")
    else:
        margin, kind = record.number("margin"), record.text("kind", default="")
        yield pair_row(record.origin, turns, *texts, margin=margin, kind=kind)


def _answer(record: Record, key: str) -> Turn | None:
    """The answer as a turn, or None where it is a call that cannot be read."""
    value = record.value.get(key)
    if not isinstance(value, dict):
        return Turn("assistant", record.text(key))
    turn = sharegpt_turn(Record(record.origin, value))
    if turn and turn.role != "assistant":
        raise fault(record.origin, f'"{key}" is a {turn.role} turn', "give the assistant's answer")
    return turn
