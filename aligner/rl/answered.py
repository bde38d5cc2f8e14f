"""A rollout as rewards see it, and how they ask for numbers.

B = episodes, R = response positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aligner.data.rows import Prompt
from aligner.errors import Problem, RecipeError
from aligner.rl.finite import Stopped
from aligner.rl.rollout import Rollout


@dataclass(frozen=True)
class Answered:
    """A rollout as rewards see it."""

    rows: list[Prompt]
    rollout: Rollout
    texts: list[str]

    @property
    def finished(self) -> list[bool]:
        """False where the length limit cut the response."""
        return list(self.rollout.finished_B.tolist())

    def numbers(self, values: Sequence[float], source: str) -> Tensor:
        """What `source` gave, one number a response: (B,). RecipeError where it is anything else, Stopped for NaN."""
        found = [finite(value, source, text) for value, text in zip(values, self.texts, strict=False)]
        check_count(len(values), len(self.texts), source, "responses")
        return torch.tensor(found, device=self.rollout.logprobs_BR.device)


def check_count(given: int, wanted: int, source: str, what: str) -> None:
    """RecipeError unless there is one number each."""
    if given != wanted:
        fault = f"{source} gave {given} numbers for {wanted} {what}"
        raise RecipeError(Problem("reward", fault, f"return one float per {what[:-1]}, in their order"))


def finite(value: float, source: str, text: str) -> float:
    """The value as a float; RecipeError where it is none, Stopped where it is NaN or infinite."""
    fault = f"{source} gave {value!r} for the response {text!r}"
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise RecipeError(Problem("reward", fault, "return floats")) from error
    if not math.isfinite(number):
        raise Stopped(Problem("reward", fault, "return finite floats"))
    return number
