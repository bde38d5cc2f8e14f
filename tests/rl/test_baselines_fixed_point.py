"""RLOO, DPO and best-of-n beside the exact optimum of KL-regularised reward (tests/rl/tabular.py); GRPO, which misses it."""

from __future__ import annotations

import statistics
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from aligner.recipe.group import GrpoSpec, RlooSpec
from aligner.rl.group_update import GroupBatch, GroupUpdate, advantages
from aligner.rl.rollout import Rollout
from aligner.rl.score import score
from aligner.rl.seeds import generator
from aligner.stages.preference_losses import preference_loss
from tests.rl.tabular import NO_RULE, Environment, Tabular, earned

BAR, MEDIAN_BAR, MISSED = 0.05, 0.01, 0.08
GROUP, PROMPTS, STEPS = 4, 128, 150
NUMBERS = {
    "steps": STEPS,
    "prompts_per_step": PROMPTS,
    "samples_per_prompt": GROUP,
    "epochs": 4,
    "learning_rate": 0.05,
    "kl_coef": 1.0,
}


def train(environment: Environment, spec: RlooSpec | GrpoSpec, *, seed: int = 0) -> float:
    """As in `aligner.stages.group`; the distance to the optimum at the end."""
    policy, reference = Tabular(environment.reference), Tabular(environment.reference)
    policy.same_numerics = True  # type: ignore[assignment]
    weights = {"logits": policy.logits}
    optimizer = torch.optim.Adam(weights.values(), lr=spec.learning_rate, eps=1e-5)
    recipe: Any = SimpleNamespace(
        numbers=spec, seed=seed, stage="group", sampling=SimpleNamespace(max_new_tokens=4)
    )
    update = GroupUpdate(recipe, policy, weights, optimizer)  # type: ignore[arg-type]
    prompts: list[list[int]] = [[] for _ in range(GROUP * PROMPTS)]
    for step in range(STEPS):
        rollout = policy.sample(prompts, generator(seed, "sample", step))
        with torch.no_grad():
            ref_BR = reference.evaluate(prompts, rollout.ids_BR, rollout.mask_BR).logprobs_BR
        scored = score(
            rollout, earned(environment, rollout), ref_BR, kl_coef=spec.kl_coef, missing_eos=NO_RULE
        )
        update(GroupBatch(rollout, rollout.logprobs_BR, ref_BR, advantages(scored, spec)), step)
    with torch.no_grad():
        return environment.distance(policy.logits, beta=1.0)


def test_rloo_reaches_the_optimum_in_every_environment() -> None:
    spec = RlooSpec(**NUMBERS)
    distances = [train(Environment.random(seed), spec, seed=seed) for seed in range(8)]
    assert max(distances) < BAR and statistics.median(distances) <= MEDIAN_BAR, distances


@pytest.mark.parametrize("scale", ["group", "none"])
def test_grpo_ends_somewhere_else(scale: Any) -> None:
    """Its KL is k3 in the loss, whose gradient is not that of the KL it pays for (see `aligner.rl.kl`)."""
    assert train(Environment.random(0), GrpoSpec(**NUMBERS, scale=scale)) > MISSED


def whole(logprobs_BR: Tensor, rollout: Rollout) -> Tensor:
    return torch.where(rollout.mask_BR, logprobs_BR, 0.0).sum(dim=1)


def test_dpo_reaches_the_optimum_where_preferences_are_bradley_terrys() -> None:
    """Both orders of each pair, each weighing its probability: the expectation over annotators (arXiv:2305.18290, 4)."""
    environment, beta = Environment.random(0), 1.0
    policy, reference = Tabular(environment.reference), Tabular(environment.reference)
    optimizer = torch.optim.Adam([policy.logits], lr=0.05)
    prompts: list[list[int]] = [[] for _ in range(2048)]
    assert environment.distance(environment.reference, beta) > 4 * BAR
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / STEPS)
        rollout = reference.sample(prompts, generator(0, "pairs", step))
        with torch.no_grad():
            ref_B = whole(reference.evaluate(prompts, rollout.ids_BR, rollout.mask_BR).logprobs_BR, rollout)
        ratios_B = (
            whole(policy.evaluate(prompts, rollout.ids_BR, rollout.mask_BR).logprobs_BR, rollout) - ref_B
        )
        one_P, other_P = earned(environment, rollout).chunk(2)
        left_P, right_P = ratios_B.chunk(2)
        both = [
            (torch.cat([left_P, right_P]), (one_P - other_P).sigmoid()),
            (torch.cat([right_P, left_P]), (other_P - one_P).sigmoid()),
        ]
        loss = sum(
            preference_loss(ratios, torch.ones_like(ratios), loss="sigmoid", beta=beta, weight_B=weight)
            for ratios, weight in both
        )
        optimizer.zero_grad()
        (loss / len(one_P)).backward()  # type: ignore[union-attr]
        optimizer.step()
    with torch.no_grad():
        assert environment.distance(policy.logits, beta) < BAR
