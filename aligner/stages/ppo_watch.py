"""A policy from outside: figures on a step's responses, and on responses to prompts it is never trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from aligner.data.tokens import PromptRow
from aligner.evals.gold_rows import score_rows
from aligner.evals.responses import response_statistics
from aligner.rl.actors import LanguageActor
from aligner.rl.answered import Answered
from aligner.rl.collect import collect
from aligner.rl.kl import k1, nats_per_response
from aligner.rl.ranks import ALONE, Ranks
from aligner.rl.rewards import Rewards
from aligner.rl.seeds import generator
from aligner.rl.update import evaluate_in_parts
from aligner.run.progress import say

SAMPLES_KEPT = 16  # held-out prompts whose responses go to samples.jsonl at each look


@dataclass(frozen=True)
class Watch:
    """Held-out prompts; the same prompts and the same sampling noise at every look, so that only the policy differs."""

    rows: list[PromptRow]
    rewards: Rewards
    reference: LanguageActor
    seed: int
    rows_per_device: int | None
    area: str = "ppo"  # before the names of its figures: the stage that is watched
    ranks: Ranks = ALONE

    def look(self, policy: LanguageActor, step: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Metrics and the rows for samples.jsonl of the policy after `step` steps."""
        answered, earned = collect(
            policy,
            self.rewards,
            self.rows,
            generator(self.seed, "holdout"),
            ranks=self.ranks,
            with_values=False,
        )
        proxy_B = earned.total() if self.rewards.parts else None
        gold, rollout = gold_rewards(answered), answered.rollout
        seen = evaluate_in_parts(
            self.reference, rollout, rows_per_device=self.rows_per_device, ranks=self.ranks
        )
        kl_B = nats_per_response(k1(rollout.logprobs_BR, seen.logprobs_BR), rollout.mask_BR)
        metrics = {"kl/holdout_ref_nats_per_response": float(kl_B.mean())}
        if proxy_B is not None:
            metrics = {f"{self.area}/holdout_proxy_reward": float(proxy_B.mean())} | metrics
        if (mean := mean_of_known(gold)) is not None:
            metrics[f"{self.area}/holdout_gold_reward"] = mean
        metrics |= text_metrics(answered, f"{self.area}/holdout_")
        return metrics, samples(answered, proxy_B, gold, kl_B, step)


def tell_rewards(rewards: Rewards) -> None:
    """Say of every reward model whether it shares the policy's weights, and what it reads."""
    for place, reward in rewards.models().items():
        say(f"{place}: {reward.told()}")


def gold_rewards(answered: Answered) -> list[float | None]:
    """True reward of each response whose prompt has a gold answer. Measured only."""
    known = [i for i, row in enumerate(answered.rows) if row.gold]
    finished = answered.rollout.finished_B.tolist()
    scores = score_rows(
        [answered.rows[i] for i in known], [answered.texts[i] for i in known], [finished[i] for i in known]
    )
    by_place = dict(zip(known, scores, strict=True))
    return [by_place.get(i) for i in range(len(answered.rows))]


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """Mean of those that are there; None when none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def text_metrics(answered: Answered, prefix: str) -> dict[str, float]:
    """Length, endings, variety and repetition of the responses, each under `prefix`."""
    rollout = answered.rollout
    token_ids = [rollout.response(i) for i in range(len(answered.rows))]
    seen = response_statistics(answered.texts, token_ids, rollout.finished_B.tolist())
    return {
        f"{prefix}response_tokens": seen.tokens,
        f"{prefix}finished_share": seen.finished,
        f"{prefix}distinct_share": seen.distinct,
        f"{prefix}repetition_share": seen.repetition,
    }


def samples(
    answered: Answered, proxy_B: Tensor | None, gold: Sequence[float | None], kl_B: Tensor, step: int
) -> list[dict[str, Any]]:
    """The first responses of a look, as rows for samples.jsonl."""
    finished, kl = answered.rollout.finished_B.tolist(), kl_B.tolist()
    proxy = [None] * len(kl) if proxy_B is None else proxy_B.tolist()
    return [
        {
            "step": step,
            "prompt": "\n".join(turn.content for turn in row.turns),
            "family": row.family,
            "response": answered.texts[i],
            "finished": finished[i],
            "proxy_reward": proxy[i],
            "gold_reward": gold[i],
            "kl_nats": kl[i],
        }
        for i, row in enumerate(answered.rows[:SAMPLES_KEPT])
    ]
