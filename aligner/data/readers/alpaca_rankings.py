"""Format `alpaca_rankings`: {"instruction", "input", "output": [best first], "history"} rows."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.alpaca import instruction_turn
from aligner.data.readers.rankings import check_rankable, ranked_pairs
from aligner.data.readers.records import Record, fault
from aligner.data.rows import Dropped, Pair, Turn


def read_alpaca_rankings(record: Record) -> Iterator[Pair | Dropped]:
    """All pairs of a ranking, as in `rankings`; the earlier [question, answer] turns of "history" come first."""
    answers = record.texts("output")
    check_rankable(record, "output", answers)
    question = instruction_turn(record.origin, record.text("instruction"), record.text("input", default=""))
    prompt = (*_history(record), question)
    yield from ranked_pairs(record.origin, prompt, answers, kind=record.text("kind", default=""))


def _history(record: Record) -> Iterator[Turn]:
    value = record.value.get("history") or []
    entries = value if isinstance(value, list) else [value]
    for index, entry in enumerate(entries):
        if not isinstance(entry, list) or len(entry) != 2:
            what = f'"history"[{index}] is not [question, answer]'
            raise fault(record.origin, what, "give each earlier turn as [question, answer]")
        question, answer = Record(record.origin, {"history": entry}).texts("history")
        yield Turn("user", question.strip())
        yield Turn("assistant", answer.strip())
