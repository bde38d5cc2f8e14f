"""What is no number ends a run, before it gets into a weight or a checkpoint.

B = episodes, R = response positions.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from aligner.errors import Problem, TrainingError

_REMEDY = "lower {area}.learning_rate, or the reward's scale; the newest checkpoint is as it was"


class Stopped(TrainingError):
    """The run ends before an update: the weights are still those that the step began with."""


def finite(value: float, what: str, area: str = "ppo") -> float:
    """The value; TrainingError where it is NaN or infinite."""
    if value - value == 0:  # false for inf and nan
        return value
    raise TrainingError(Problem(area, f"the {what} is {value}", _REMEDY.format(area=area)))


def check_finite(x: Tensor, mask: Tensor | None, what: str, area: str = "ppo") -> None:
    """Stopped where one of those that count (all, without a mask) has no number."""
    counted = x if mask is None else x[mask]
    bad = counted[~counted.isfinite()]
    if len(bad):
        fault = f"{len(bad)} of {counted.numel()} {what} are no numbers, the first is {float(bad[0])}"
        raise Stopped(Problem(area, fault, _REMEDY.format(area=area)))


def check_weights(weights: Iterable[nn.Parameter], area: str = "ppo") -> None:
    """TrainingError where a weight is no number: nothing that has it is to be saved, or could go on."""
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        remedy = f"lower {area}.learning_rate; the newest checkpoint is as it was"
        raise TrainingError(Problem(area, "a weight is no number any more", remedy))
