"""Format `prompts`: {"prompt"} rows, with an optional "family" and "gold"; bare strings; MOSS's {"user_prompt"}."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.records import Record
from aligner.data.rows import Dropped, Prompt


def read_prompts(record: Record) -> Iterator[Prompt | Dropped]:
    """One prompt a row; other keys are not read."""
    key = "user_prompt" if "user_prompt" in record.value and "prompt" not in record.value else "prompt"
    turns = record.prompt(key)
    if not all(turn.content for turn in turns):
        yield Dropped(record.origin, "empty_turn")
        return
    yield Prompt(record.origin, turns, record.text("family", default=""), record.mapping("gold"))
