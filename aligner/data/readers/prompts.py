"""Format `prompts`: {"prompt"} rows, with an optional "family" and "gold"; bare strings; MOSS's {"user_prompt"}."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.records import Record
from aligner.data.readers.tool_calls import in_order
from aligner.data.rows import Dropped, Prompt


def read_prompts(record: Record) -> Iterator[Prompt | Dropped]:
    """One prompt a row; other keys are not read. Dropped, by name: `empty_turn`, `roles_out_of_order`."""
    key = "user_prompt" if "user_prompt" in record.value and "prompt" not in record.value else "prompt"
    turns = record.prompt(key)
    if not all(turn.content for turn in turns):
        yield Dropped(record.origin, "empty_turn")
    elif not in_order(turns):
        yield Dropped(record.origin, "roles_out_of_order")
    else:
        yield Prompt(record.origin, turns, record.text("family", default=""), record.mapping("gold"))
