"""A policy's answers to prompts and what they earned, found by all ranks together.

B = episodes, R = response positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from aligner.data.tokens import PromptRow
from aligner.rl.actors import LanguageActor
from aligner.rl.answered import Answered
from aligner.rl.ranks import ALONE, Ranks
from aligner.rl.rewards import Earned, Rewards
from aligner.rl.rollout import Rollout, joined, under_each_other


class Collected(NamedTuple):
    """Episodes with their texts, and what they earned."""

    answered: Answered
    earned: Earned


class Share(NamedTuple):
    """One rank's part, on its way to the others."""

    rollout: Rollout
    texts: list[str]
    scores_B: Tensor
    tokens_BR: Tensor | None


def collect(
    policy: LanguageActor,
    rewards: Rewards,
    rows: Sequence[PromptRow],
    rng: torch.Generator,
    *,
    ranks: Ranks = ALONE,
    group: int = 1,
    with_values: bool = True,
) -> Collected:
    """One answer to each row; every rank samples and scores a share in a row, groups of `group` rows whole.

    A row's answer hangs on its own random numbers alone, and they are drawn as by one rank: which rank samples it, and
    how many there are, changes nothing but rounding. A reward sees the share of its rank. AlignerError of a reward on
    all ranks, where it is one on any.
    """
    groups = range(0, len(rows), group)
    own = [rows[i] for start in ranks.share(groups) for i in range(start, start + group)]
    drawn = ranks.before(len(groups)) * group

    def work() -> Share | None:
        torch.rand(drawn, policy.drawing.max_new_tokens, generator=rng)  # the numbers of other ranks' rows
        if not own:
            return None
        rollout = policy.sample([row.input_ids for row in own], rng, with_values=with_values)
        answered = rewards.answered([row.prompt for row in own], rollout)
        earned = rewards.earned(answered)
        where = "cpu" if ranks.count > 1 else rollout.ids_BR.device
        tokens_BR = None if earned.tokens_BR is None else earned.tokens_BR.to(where)
        return Share(rollout.to(where), answered.texts, earned.scores_B.to(where), tokens_BR)

    return _whole([share for share in ranks.together(work) if share], rows, policy)


def _whole(shares: Sequence[Share], rows: Sequence[PromptRow], policy: LanguageActor) -> Collected:
    """All shares as one, where the policy is."""
    device = next(policy.model.parameters()).device
    tokens = [share.tokens_BR for share in shares if share.tokens_BR is not None]
    answered = Answered(
        rows=[row.prompt for row in rows],
        rollout=joined([share.rollout for share in shares]).to(device),
        texts=[text for share in shares for text in share.texts],
    )
    scores_B = torch.cat([share.scores_B for share in shares]).to(device)
    return Collected(answered, Earned(scores_B, under_each_other(tokens).to(device) if tokens else None))
