"""What all pairs of a mixture say together: contradictions, repeats, and how much a prompt counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from aligner.data.mixture import group_of
from aligner.data.readers import SourceRows
from aligner.data.rows import Pair, Row, Turn
from aligner.recipe.data import PairRules

Verdict = tuple[tuple[Turn, ...], str, str]  # prompt, chosen, rejected


def settle_pairs(sources: Sequence[SourceRows], rules: PairRules) -> None:
    """Drop, over all sources, the pairs that contradict others or repeat them, as `rules` says.

    Two pairs are in conflict where they have the same prompt and the same two answers in opposite order, to the
    letter. Every row is a vote. Dropped as `outvoted_pair` (fewer rows say so than say the opposite),
    `conflicting_pair` (as many do, or the rule is "drop") and `repeated_pair` (an earlier row says the same).
    A row of either sort that stays is counted in the source's `noted`, by the last two of these names.
    """
    votes = Counter(_verdict(row) for source in sources for row in source.rows)
    seen: set[Verdict] = set()

    def reason_against(row: Row, noted: Counter[str]) -> str | None:
        prompt, chosen, rejected = verdict = _verdict(row)
        against = votes.get((prompt, rejected, chosen), 0)
        reason = _conflict(votes[verdict], against, rules) if against else None
        if reason is not None:
            return reason
        repeated = verdict in seen
        seen.add(verdict)
        if repeated and rules.repeats == "once":
            return "repeated_pair"
        noted["conflicting_pair"] += bool(against)
        noted["repeated_pair"] += repeated
        return None

    for source in sources:
        noted: Counter[str] = Counter()
        source.keep(lambda row, noted=noted: reason_against(row, noted))
        source.noted += noted


def _verdict(row: Row) -> Verdict:
    pair = cast(Pair, row)
    return pair.prompt, pair.chosen, pair.rejected


def _conflict(votes: int, against: int, rules: PairRules) -> str | None:
    """Why a verdict with so many votes for and against it goes."""
    if rules.conflicts == "keep" or (rules.conflicts == "majority" and votes > against):
        return None
    return "outvoted_pair" if rules.conflicts == "majority" and votes < against else "conflicting_pair"


def share_weights(sources: Sequence[SourceRows]) -> None:
    """Give the n pairs of a prompt, over all sources, the weight 1/n each, so that every prompt counts once.

    InstructGPT (arXiv:2203.02155, section 3.5) has all k(k-1)/2 pairs of a ranking as one element of a batch, since
    one prompt's pairs are much alike; this is the same mean. Prompts are told apart as in `draw_holdout`. Copies that
    a source's `weight` asks for are not counted: they make a prompt count more.
    """
    pairs = Counter(group_of(row) for source in sources for row in source.rows)
    for source in sources:
        source.rows = [replace(cast(Pair, row), weight=1 / pairs[group_of(row)]) for row in source.rows]
