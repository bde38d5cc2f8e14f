"""Episodes: prompts and the responses the policy drew to them, with what it thought of them then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional

from aligner.rl.seeds import rows_at


@dataclass(frozen=True)
class Rollout:
    """B episodes. R = longest response; what stands where `mask_BR` is False means nothing."""

    prompts: list[list[int]]  # token ids of each prompt, unpadded
    ids_BR: Tensor  # response tokens
    mask_BR: Tensor  # True on real response tokens, end of text included
    logprobs_BR: Tensor  # nats, under exactly the distribution that was sampled from
    finished_B: Tensor  # True where the response came to its end of text
    values_BR: Tensor | None = (
        None  # the critic's, where the policy's own pass gave them; as the log-probabilities
    )

    @property
    def num_tokens(self) -> int:
        """Real response tokens."""
        return int(self.mask_BR.sum())

    def response(self, episode: int) -> list[int]:
        """The response's tokens, end of text included."""
        return self.ids_BR[episode][self.mask_BR[episode]].tolist()

    def select(self, episodes: Tensor) -> Rollout:
        """These episodes alone, cut to their own longest response."""
        width = real_width(self.mask_BR[episodes])
        return Rollout(
            prompts=[self.prompts[i] for i in episodes.tolist()],
            ids_BR=self.ids_BR[episodes, :width],
            mask_BR=self.mask_BR[episodes, :width],
            logprobs_BR=self.logprobs_BR[episodes, :width],
            finished_B=self.finished_B[episodes],
            values_BR=None if self.values_BR is None else self.values_BR[episodes, :width],
        )

    def to(self, device: torch.device | str) -> Rollout:
        """The same with its tensors there."""
        return Rollout(
            self.prompts,
            self.ids_BR.to(device),
            self.mask_BR.to(device),
            self.logprobs_BR.to(device),
            self.finished_B.to(device),
            None if self.values_BR is None else self.values_BR.to(device),
        )


def joined(parts: Sequence[Rollout]) -> Rollout:
    """Several rollouts as one, as wide as the longest response of all."""
    if len(parts) == 1:
        return parts[0]
    values = [part.values_BR for part in parts if part.values_BR is not None]
    return Rollout(
        prompts=[prompt for part in parts for prompt in part.prompts],
        ids_BR=under_each_other([part.ids_BR for part in parts]),
        mask_BR=under_each_other([part.mask_BR for part in parts]),
        logprobs_BR=under_each_other([part.logprobs_BR for part in parts]),
        finished_B=torch.cat([part.finished_B for part in parts]),
        values_BR=under_each_other(values) if values else None,
    )


def under_each_other(parts_BR: Sequence[Tensor]) -> Tensor:
    """The rows of all parts, 0 (or False) to the right of what is narrower than the widest."""
    width = max(part_BR.shape[1] for part_BR in parts_BR)
    return torch.cat([functional.pad(part_BR, (0, width - part_BR.shape[1])) for part_BR in parts_BR])


PASS_TOKENS = {"cpu": 4096}  # of a forward pass; more is no faster there, and holds more at once
MANY_TOKENS = 65536  # on an accelerator


def passes(rollout: Rollout, rows_per_device: int | None, *, ranks: int = 1) -> list[Tensor]:
    """Episode numbers of each forward pass, that of several ranks together: so many a rank at most, in their order.

    Without a number: as many as have `PASS_TOKENS` tokens, padding included; where that takes several passes, episodes
    of like length go together.
    """
    numbers = torch.arange(len(rollout.prompts))
    if rows_per_device is not None:
        return list(torch.split(numbers, rows_per_device * ranks))
    budget = PASS_TOKENS.get(rollout.ids_BR.device.type, MANY_TOKENS)
    answers = rollout.mask_BR.sum(dim=1).tolist()
    lengths = [len(prompt) + answer for prompt, answer in zip(rollout.prompts, answers, strict=True)]
    if max(lengths, default=0) * ceil(len(lengths) / ranks) <= budget:
        return [numbers]
    parts: list[list[int]] = [[]]
    for episode in sorted(range(len(lengths)), key=lengths.__getitem__):
        if parts[-1] and lengths[episode] * ceil((len(parts[-1]) + 1) / ranks) > budget:
            parts.append([])
        parts[-1].append(episode)
    return [torch.tensor(part) for part in parts]


def real_width(mask_BR: Tensor) -> int:
    """Columns up to the last one in which any episode has a real token."""
    columns = mask_BR.any(dim=0).nonzero()
    return int(columns.max()) + 1 if len(columns) else 0


def prompts_for(step: int, *, num_prompts: int, prompts_per_step: int, seed: int) -> list[int]:
    """Row numbers of one step: a walk through reshuffled epochs, a function of (seed, step) alone.

    Steps may straddle two epochs, so no prompt is left out and a set smaller than a step is gone through several times.
    """
    start = step * prompts_per_step
    return rows_at(start, prompts_per_step, num_rows=num_prompts, seed=seed, purpose="prompts")
