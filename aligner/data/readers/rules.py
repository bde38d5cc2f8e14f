"""Format `rules`: {"prompt", "answers": [{"text", "violated": [rule, ...]}]} rows.

Feedback by rules (survey arXiv:2303.18223, 5.2.2; Sparrow, arXiv:2209.14375, asks which of its rules an answer breaks).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aligner.data.readers.rankings import check_rankable, scored_pairs
from aligner.data.readers.records import Record, fault
from aligner.data.rows import Dropped, Pair


def read_rules(record: Record, criteria: Mapping[str, float] | None = None) -> Iterator[Pair | Dropped]:
    """All pairs of the answers, the one that breaks less chosen; two that break as much are a `tie`.

    criteria: what each broken rule costs; 1 each when empty or None. Where it is given, a row may name no other rule:
    one that costs nothing by a slip of the pen would teach the opposite.
    """
    answers = record.records("answers")
    check_rankable(record, "answers", answers)
    scored = [(answer.text("text"), -_cost(answer, criteria or {})) for answer in answers]
    yield from scored_pairs(record.origin, record.prompt(), scored, kind=record.text("kind", default=""))


def _cost(answer: Record, criteria: Mapping[str, float]) -> float:
    """What an answer's violations cost, each rule once."""
    broken = sorted(set(answer.texts("violated")))
    unknown = [rule for rule in broken if criteria and rule not in criteria]
    if unknown:
        what = f'the rule "{unknown[0]}" has no weight in the recipe'
        raise fault(answer.origin, what, f"criteria of the source has: {', '.join(criteria)}")
    return sum(criteria.get(rule, 1.0) for rule in broken)
