"""Format `alpaca_rankings`: {"instruction", "input", "output": [best first], "history"} rows."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.alpaca import earlier_turns, instruction_turn
from aligner.data.readers.rankings import check_rankable, ranked_pairs
from aligner.data.readers.records import Record
from aligner.data.rows import Dropped, Pair


def read_alpaca_rankings(record: Record) -> Iterator[Pair | Dropped]:
    """All pairs of a ranking, as in `rankings`; the text at "system" and the earlier turns of "history" come first."""
    answers = record.texts("output")
    check_rankable(record, "output", answers)
    question = instruction_turn(record.origin, record.text("instruction"), record.text("input", default=""))
    prompt = (*earlier_turns(record), question)
    yield from ranked_pairs(record.origin, prompt, answers, kind=record.text("kind", default=""))
