"""Episodes: prompts and the responses the policy drew to them, with what it thought of them then."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from aligner.rl.seeds import rows_at


@dataclass(frozen=True)
class Rollout:
    """B episodes. R = longest response; what stands where `mask_BR` is False means nothing."""

    prompts: list[list[int]]  # token ids of each prompt, unpadded
    ids_BR: Tensor  # response tokens
    mask_BR: Tensor  # True on real response tokens, end of text included
    logprobs_BR: Tensor  # nats, under exactly the distribution that was sampled from
    finished_B: Tensor  # True where the response came to its end of text

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
        )


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
