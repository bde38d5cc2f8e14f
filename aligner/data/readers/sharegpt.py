"""Format `sharegpt`: {"conversations": [{"from", "value"}, ...]} rows, as in the data of Vicuna."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from aligner.data.readers.messages import conversation_row, given_tools
from aligner.data.readers.records import Record, fault
from aligner.data.rows import Conversation, Dropped, Turn

SPEAKERS: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
}
TOOLS = ("function_call", "observation", "tool")


def read_sharegpt(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation a row, after the text at "system" where there is one.

    Dropped, by name: `tool_calls` (tools are given or called), `roles_out_of_order` (human and model do not take
    turns, the human first), `empty_turn`.
    """
    messages = record.records("conversations")
    if not messages:
        raise fault(record.origin, '"conversations" is empty', "give at least one message, or delete the row")
    if given_tools(record) or any(message.value.get("from") in TOOLS for message in messages):
        yield Dropped(record.origin, "tool_calls")
        return
    system = record.text("system", default="").strip()
    turns = tuple(_turn(message) for message in messages)
    if system:
        turns = (Turn("system", system), *turns)
    if not in_order(turns):
        yield Dropped(record.origin, "roles_out_of_order")
    else:
        yield conversation_row(record.origin, turns, record.text("family", default=""))


def _turn(message: Record) -> Turn:
    speaker = message.text("from")
    if speaker not in SPEAKERS:
        raise fault(message.origin, f'unknown speaker "{speaker}"', f"valid: {', '.join(SPEAKERS)}")
    return Turn(SPEAKERS[speaker], message.text("value").strip())


def in_order(turns: tuple[Turn, ...]) -> bool:
    """Whether user and assistant take turns, the user first, after at most one system turn."""
    roles = [turn.role for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    return bool(spoken) and all(role == ("user", "assistant")[i % 2] for i, role in enumerate(spoken))
