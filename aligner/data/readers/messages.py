"""Format `messages`: {"messages": [{"role", "content"}, ...]} rows, as chat models are given them."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.records import Record, fault
from aligner.data.rows import Conversation, Dropped, Origin, Turn


def read_messages(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation a row. A turn without text drops the row as `empty_turn`, a tool's as `tool_calls`."""
    if _speaks_to_tools(record):
        yield Dropped(record.origin, "tool_calls")
        return
    yield conversation_row(record.origin, record.turns("messages"), record.text("family", default=""))


def _speaks_to_tools(record: Record) -> bool:
    messages = record.records("messages")
    called = any(
        message.value.get("tool_calls") or message.value.get("role") == "tool" for message in messages
    )
    return called or given_tools(record)


def given_tools(record: Record) -> bool:
    """Whether the row gives its model tools: a list of them, or such a list written out as a string."""
    tools = record.value.get("tools")
    return bool(tools) and tools != "[]"


def conversation_row(origin: Origin, turns: tuple[Turn, ...], family: str) -> Conversation | Dropped:
    """Turns as a conversation, `empty_turn` where one has no text; a system turn may only stand first."""
    if any(turn.role == "system" for turn in turns[1:]):
        raise fault(origin, "a system turn after the first turn", "put the system turn first, or delete it")
    if not all(turn.content for turn in turns):
        return Dropped(origin, "empty_turn")
    return Conversation(origin, turns, family)
