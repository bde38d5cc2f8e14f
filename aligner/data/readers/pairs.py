"""Format `pairs`: {"prompt", "chosen", "rejected"} rows, with an optional "margin" and "kind"."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.records import Record
from aligner.data.rows import Dropped, Origin, Pair, Turn


def read_pairs(record: Record) -> Iterator[Pair | Dropped]:
    """One pair a row; an answer without text is `empty_answer`, twice the same answer `answers_equal`."""
    yield pair_row(
        record.origin,
        record.prompt(),
        record.text("chosen"),
        record.text("rejected"),
        margin=record.number("margin"),
        kind=record.text("kind", default=""),
    )


def pair_row(
    origin: Origin, prompt: tuple[Turn, ...], chosen: str, rejected: str, *, margin: float | None, kind: str
) -> Pair | Dropped:
    """A pair, or why it teaches nothing."""
    chosen, rejected = chosen.strip(), rejected.strip()
    if not all(turn.content for turn in prompt):
        return Dropped(origin, "empty_turn")
    if not chosen or not rejected:
        return Dropped(origin, "empty_answer")
    if chosen == rejected:
        return Dropped(origin, "answers_equal")
    return Pair(origin, prompt, chosen, rejected, margin, kind)
