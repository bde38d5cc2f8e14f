"""Recipes of learning from several answers to each prompt, judged beside each other; there is no critic."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec
from aligner.recipe.ppo import MissingEosSpec, PromptsSpec, RewardedRecipe, RewardSource
from aligner.recipe.training import SamplingSpec


class GroupSpec(Spec):
    """What GRPO, RLOO and rejection sampling share; what PPO has too means the same there."""

    steps: int = Field(gt=0, description="rollout batches")
    prompts_per_step: int = Field(16, gt=0, description="prompts in a rollout batch")
    samples_per_prompt: int = Field(4, gt=1, description="responses to each prompt of a step: its group")
    epochs: int = Field(1, gt=0, description="passes over a rollout batch")
    minibatches: int = Field(1, gt=0, description="optimiser steps per pass")
    rows_per_device: int | None = Field(
        None, gt=0, description="responses in one forward pass; a whole minibatch when left out"
    )
    learning_rate: float = Field(1e-4, gt=0, description="at the start; falls linearly to 0")
    gain_learning_rate: float | None = Field(
        None, gt=0, description="of trained vectors (a norm's gains); learning_rate when left out"
    )
    missing_eos: MissingEosSpec = Field(default_factory=MissingEosSpec)
    max_grad_norm: float = Field(1.0, gt=0)
    evaluate_every: int = Field(10, gt=0, description="steps between two looks at the held-out prompts")
    checkpoint_every: int | None = Field(None, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto = fp32: the ratio is sensitive"
    )

    @property
    def learnt_per_step(self) -> int:
        """Responses of a rollout batch that are learnt from."""
        return self.prompts_per_step * self.samples_per_prompt

    @model_validator(mode="after")
    def _minibatches_divide(self) -> Self:
        if self.learnt_per_step % self.minibatches:
            raise ValueError(
                f"the {self.learnt_per_step} responses learnt from in a step"
                f" must be a multiple of minibatches = {self.minibatches}"
            )
        return self


class RlooSpec(GroupSpec):
    """REINFORCE, leave one out (Ahmadian et al. 2024, arXiv:2402.14740): a response's baseline is the others' mean."""

    clip: float = Field(0.2, gt=0)
    kl_coef: float = Field(0.05, ge=0, description="beta: reward lost per nat of log(policy / reference)")
    whiten: bool = Field(False, description="advantages to mean 0 and deviation 1 over the rollout batch")


class GrpoSpec(GroupSpec):
    """Group-relative policy optimisation (Shao et al. 2024, arXiv:2402.03300), and the losses that followed it."""

    clip: float = Field(0.2, gt=0)
    kl_coef: float = Field(
        0.04,
        ge=0,
        description="weight of the KL to the reference in the loss (k3 times the ratio, per token)",
    )
    scale: Literal["group", "batch", "none"] = Field(
        "group",
        description="whose deviation a response's lead over its group is divided by; none: Dr. GRPO (arXiv:2503.20783)",
    )
    loss: Literal["dapo", "grpo", "dr_grpo"] = Field(
        "dapo",
        description="mean over tokens (dapo, arXiv:2503.14476), responses (grpo), or tokens / max_new_tokens (dr_grpo)",
    )


class RejectionSpec(GroupSpec):
    """Rejection-sampling fine-tuning, step after step (Llama 2, arXiv:2307.09288, 3.2.3; RAFT, arXiv:2304.06767)."""

    samples_per_prompt: int = Field(8, gt=1, description="responses to each prompt of a step: its group")
    keep: int = Field(
        1, gt=0, description="best responses of each group, which are learnt as SFT's answers are"
    )

    @property
    def learnt_per_step(self) -> int:
        """Responses of a rollout batch that are learnt from."""
        return self.prompts_per_step * self.keep

    @model_validator(mode="after")
    def _some_are_rejected(self) -> Self:
        if self.keep >= self.samples_per_prompt:
            raise ValueError(
                f"keep = {self.keep} rejects none of samples_per_prompt = {self.samples_per_prompt}; keep fewer"
            )
        return self


class GroupRecipe(RewardedRecipe):
    """Learning from the policy's own answers without a critic."""

    reward: list[RewardSource] = Field(min_length=1)
    data: PromptsSpec
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)

    @property
    def numbers(self) -> GrpoSpec | RlooSpec | RejectionSpec:
        """The section that is named after the stage."""
        section: GrpoSpec | RlooSpec | RejectionSpec = getattr(self, self.stage)
        return section


class RlooRecipe(GroupRecipe):
    """REINFORCE with the other answers to the same prompt as the baseline."""

    stage: Literal["rloo"]
    rloo: RlooSpec


class GrpoRecipe(GroupRecipe):
    """Clipped policy gradients on rewards relative to the other answers to the same prompt."""

    stage: Literal["grpo"]
    grpo: GrpoSpec


class RejectionRecipe(GroupRecipe):
    """Supervised tuning on the best of the policy's own answers, again and again."""

    stage: Literal["rejection"]
    rejection: RejectionSpec
