"""The four kinds of rows that stages ask for, and a row of one kind as a row of another."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from aligner.data.rows import Conversation, Document, Dropped, Pair, Prompt, Row, Turn, row_turns
from aligner.recipe.data import SourceSpec

Kind = Literal["document", "conversation", "pair", "prompt"]


def kind_read(source: SourceSpec, kind: Kind) -> Kind:
    """The kind of rows that are read from a source where rows of `kind` are wanted: plain text is learnt as it is."""
    return "document" if kind == "conversation" and source.plain else kind


def as_kind(row: Row, kind: Kind) -> Row | Dropped:
    """The row as a row of `kind`: a conversation can be pretrained on, or be asked; a pair too."""
    if kind == "document":
        return _as_document(row)
    if kind == "prompt":
        return _as_prompt(row)
    if isinstance(row, Conversation):
        last = max((i for i, turn in enumerate(row.turns) if turn.role == "assistant"), default=-1)
        if last < 0:
            return Dropped(row.origin, "no_answer")
        if last == 0:
            return Dropped(row.origin, "no_prompt")
        if last + 1 == len(row.turns):
            return row
        return replace(row, turns=row.turns[: last + 1])  # what follows cannot be learnt from
    return Dropped(row.origin, "no_answer") if isinstance(row, Prompt) else row


def _as_document(row: Row) -> Row | Dropped:
    if any(turn.about_tools for turn in row_turns(row)):
        return Dropped(row.origin, "tool_calls")  # no tokenizer is there yet to tell whether it renders them
    if isinstance(row, Conversation):
        return Document(row.origin, turns=row.turns)
    if isinstance(row, Pair):
        return Document(row.origin, turns=(*row.prompt, Turn("assistant", row.chosen)))
    return Dropped(row.origin, "no_answer") if isinstance(row, Prompt) else row


def _as_prompt(row: Row) -> Row | Dropped:
    if isinstance(row, Pair):
        return Prompt(row.origin, row.prompt, row.kind)
    if isinstance(row, Conversation):
        last = max((i for i, turn in enumerate(row.turns) if turn.role == "user"), default=-1)
        return (
            Prompt(row.origin, row.turns[: last + 1], row.family)
            if last >= 0
            else Dropped(row.origin, "no_prompt")
        )
    return row
