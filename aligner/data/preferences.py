"""What all pairs of a mixture say together: contradictions, repeats, and how much a prompt counts."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from aligner.data.keys import key_of, numbered
from aligner.data.mixture import group_of
from aligner.data.readers import SourceRows
from aligner.data.rows import Pair
from aligner.recipe.data import PairRules

Numbers = NDArray[np.intp]


def settle_pairs(sources: Sequence[SourceRows], rules: PairRules) -> None:
    """Drop, over all sources, the pairs that contradict others or repeat them, as `rules` says.

    Two pairs are in conflict where they have the same prompt and the same two answers in opposite order, to the
    letter. Every row is a vote. Dropped as `outvoted_pair` (fewer rows say so than say the opposite),
    `conflicting_pair` (as many do, or the rule is "drop") and `repeated_pair` (an earlier row says the same).
    A row of either sort that stays is counted in the source's `noted`, by the last two of these names.
    """
    verdicts, opposites = _verdicts(sources)
    votes = np.bincount(verdicts, minlength=int(opposites.max(initial=-1)) + 1)
    seen = np.zeros(len(votes), dtype=bool)
    both = zip(map(int, verdicts), map(int, opposites), strict=True)

    def reason_against(noted: Counter[str]) -> str | None:
        verdict, opposite = next(both)
        against = int(votes[opposite])
        reason = _conflict(int(votes[verdict]), against, rules) if against else None
        if reason is not None:
            return reason
        repeated = bool(seen[verdict])
        seen[verdict] = True
        if repeated and rules.repeats == "once":
            return "repeated_pair"
        noted["conflicting_pair"] += bool(against)
        noted["repeated_pair"] += repeated
        return None

    for source in sources:
        noted: Counter[str] = Counter()
        source.judge(reason_against(noted) for _ in range(len(source.rows)))
        source.noted += noted


def _verdicts(sources: Sequence[SourceRows]) -> tuple[Numbers, Numbers]:
    """A number for what each pair says, and the one for its opposite: equal pairs have equal numbers."""
    said, opposite = array("Q"), array("Q")
    for row in (cast(Pair, row) for source in sources for row in source.rows):
        said.append(key_of(repr((row.prompt, row.chosen, row.rejected))))
        opposite.append(key_of(repr((row.prompt, row.rejected, row.chosen))))
    numbers = numbered(said + opposite)
    return numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]


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
    prompts = numbered(array("Q", (group_of(row) for source in sources for row in source.rows)))
    shares = map(float, 1 / np.bincount(prompts)[prompts])
    for source in sources:
        source.change(lambda row: replace(cast(Pair, row), weight=next(shares)))
