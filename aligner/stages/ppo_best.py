"""The best policy so far, by its reward on held-out prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from aligner.rl.state import Progress

BEST = "best."


@dataclass(frozen=True)
class BestPolicy:
    """A copy of what is trained as it was at the best look; `progress` knows which that was. Empty before the first."""

    progress: Progress
    named: Mapping[str, nn.Parameter]
    weights: dict[str, Tensor] = field(default_factory=dict)

    def consider(self, step: int, reward: float) -> None:
        """Take the policy as it is now, if its reward is higher than any before."""
        if self.progress.best_reward is None or reward > self.progress.best_reward:
            self.progress.best_step, self.progress.best_reward = step, reward
            self.weights.update(
                (name, weight.detach().to("cpu", copy=True)) for name, weight in self.named.items()
            )

    def put_back(self) -> None:
        """Make the policy what it was then."""
        with torch.no_grad():
            for name, weight in self.named.items():
                weight.copy_(self.weights[name])

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {f"{BEST}{name}": weight for name, weight in self.weights.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """From a checkpoint."""
        self.weights.update(
            (name.removeprefix(BEST), tensor) for name, tensor in tensors.items() if name.startswith(BEST)
        )
