"""What every update does in each of its optimiser steps, PPO's and the critic-free ones'."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from aligner.errors import Problem, TrainingError
from aligner.recipe.group import GroupSpec
from aligner.recipe.ppo import PpoSpec
from aligner.rl.rollout import Rollout
from aligner.rl.seeds import generator

RATIO_TOLERANCE = (
    1e-4  # float32 gives 1e-6 to 1e-5; a wrong mask, position or temperature gives 1e-2 and more
)
Figures = TypeVar("Figures", bound=tuple[float, ...])  # a NamedTuple with a `ratio_first_error`


def all_minibatches(rollout: Rollout, spec: PpoSpec | GroupSpec, *, seed: int, step: int) -> Iterator[Tensor]:
    """Episode numbers of each minibatch of an update, epoch by epoch."""
    for epoch in range(spec.epochs):
        yield from shuffled_minibatches(rollout, spec.minibatches, seed=seed, step=step, epoch=epoch)


def shuffled_minibatches(
    rollout: Rollout, minibatches: int, *, seed: int, step: int, epoch: int
) -> Iterator[Tensor]:
    """A fresh order of the episodes, cut into equal parts: episode numbers of each minibatch."""
    order = torch.randperm(len(rollout.prompts), generator=generator(seed, "minibatches", step, epoch))
    yield from order.chunk(minibatches)


def set_learning_rates(optimizer: torch.optim.Optimizer, *, step: int, steps: int) -> None:
    """Each group's rate falls linearly from its own start to 0 after the last step; a function of the step alone."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * (1 - step / steps)


def check_first_ratio(ratio_error: float) -> None:
    """Before any optimiser step the actor must give the sampler's own probabilities; else TrainingError."""
    if ratio_error < RATIO_TOLERANCE:
        return
    raise TrainingError(
        Problem(
            "ppo",
            f"the policy's probabilities differ from the sampler's by a factor of up to {1 + ratio_error:.6f} "
            "before the first optimiser step",
            "dropout, another temperature or reduced precision can do this; set ppo.precision: fp32, or report it",
        )
    )


def added(total: Figures, part: Figures) -> Figures:
    """The sum of two parts' figures, of the ratio's error the larger one."""
    kind: Any = type(total)
    sums = kind(*(a + b for a, b in zip(total, part, strict=True)))
    worst = max(float(figures.ratio_first_error) for figures in (total, part))  # type: ignore[attr-defined]
    found: Figures = sums._replace(ratio_first_error=worst)
    return found
