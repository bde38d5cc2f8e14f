"""What is no number ends a run, before it gets into a weight or a checkpoint.

B = episodes, R = response positions.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from aligner.errors import Problem, TrainingError

_REMEDY = "lower ppo.learning_rate, or the reward's scale; the newest checkpoint is as it was"


class Stopped(TrainingError):
    """The run ends before an update: the weights are still those that the step began with."""


def finite(value: float, what: str) -> float:
    """The value; TrainingError where it is NaN or infinite."""
    if value - value == 0:  # false for inf and nan
        return value
    raise TrainingError(Problem("ppo", f"the {what} is {value}", _REMEDY))


def check_finite(x_BR: Tensor, mask_BR: Tensor, what: str) -> None:
    """Stopped where one of the real tokens has no number."""
    bad = x_BR[mask_BR & ~x_BR.isfinite()]
    if len(bad):
        fault = f"{len(bad)} of {int(mask_BR.sum())} {what} are no numbers, the first is {float(bad[0])}"
        raise Stopped(Problem("ppo", fault, _REMEDY))


def check_weights(weights: Iterable[nn.Parameter]) -> None:
    """TrainingError where an optimiser step has left a weight that is no number: nothing is saved any more."""
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        raise TrainingError(Problem("ppo", "a weight is no number after the update", _REMEDY))
