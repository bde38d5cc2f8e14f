"""Format `messages`: {"messages": [{"role", "content"}, ...]} rows, as chat models are given them."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.records import Record, fault
from aligner.data.rows import Conversation, Dropped


def read_messages(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation a row. A turn without text drops the row as `empty_turn`."""
    turns = record.turns("messages")
    if any(turn.role == "system" for turn in turns[1:]):
        raise fault(
            record.origin, "a system turn after the first turn", "put the system turn first, or delete it"
        )
    if not all(turn.content for turn in turns):
        yield Dropped(record.origin, "empty_turn")
        return
    yield Conversation(record.origin, turns, family=record.text("family", default=""))
