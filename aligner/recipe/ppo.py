"""The recipe of reinforcement learning: rewards, prompts, and the numbers of PPO."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec
from aligner.recipe.clean import RowCleanSpec
from aligner.recipe.data import DecontaminateSpec, SourceSpec
from aligner.recipe.stage import TunedRecipe
from aligner.recipe.training import SamplingSpec


class RewardSource(Spec):
    """One reward: a reward run, or a Python function; several are added up by weight."""

    model: str | None = Field(None, description='reward run folder or "@stage"')
    function: str | None = Field(
        None, description="module:function over (rows, responses, finished) -> floats"
    )
    weight: float = 1.0

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.model is None) == (self.function is None):
            raise ValueError("give either model or function")
        return self


class RewardedRecipe(TunedRecipe):
    """What every stage has whose answers are rewarded: to be trained on, or to be measured alone."""

    reward: list[RewardSource] = Field(
        default_factory=list,
        description="of answers to held-out prompts: measured, never trained on; none: gold and KL alone",
    )


class PromptsSpec(Spec):
    """Prompts for PPO, and held-out prompts to watch it with."""

    train: list[SourceSpec] = Field(min_length=1)
    holdout: list[SourceSpec] = Field(default_factory=list)
    decontaminate: DecontaminateSpec | None = Field(None, description="what evaluations hold is not asked")
    clean: RowCleanSpec = Field(default_factory=RowCleanSpec, description="of prompts, those held out too")
    holdout_rows: int = Field(128, gt=0, description="held-out prompts answered at each evaluation")
    max_prompt_tokens: int = Field(192, gt=0, description="longer prompts are cut from the left")


class MissingEosSpec(Spec):
    """What a response without an end-of-text token earns."""

    mode: Literal["replace", "subtract"] = "replace"
    value: float = Field(
        -1.0, description="in units of the normalised reward; subtract takes it off the score"
    )


class PpoSpec(Spec):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347) as RLHF uses it."""

    steps: int = Field(gt=0, description="rollout batches")
    prompts_per_step: int = Field(64, gt=0, description="episodes in a rollout batch")
    samples_per_prompt: int = Field(1, gt=0, description="responses to each prompt of a step")
    epochs: int = Field(4, gt=0, description="passes over a rollout batch")
    minibatches: int = Field(1, gt=0, description="optimiser steps per pass")
    rows_per_device: int | None = Field(
        None, gt=0, description="responses in one forward pass; a whole minibatch when left out"
    )
    learning_rate: float = Field(1e-4, gt=0, description="at the start; falls linearly to 0")
    value_learning_rate: float | None = Field(
        None, gt=0, description="of the value head; learning_rate when left out"
    )
    gain_learning_rate: float | None = Field(
        None, gt=0, description="of trained vectors (a norm's gains); learning_rate when left out"
    )
    clip: float = Field(0.2, gt=0)
    value_clip: float = Field(0.2, gt=0)
    value_coef: float = Field(0.1, ge=0)
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)
    kl_coef: float = Field(0.05, ge=0, description="beta: reward lost per nat of log(policy / reference)")
    missing_eos: MissingEosSpec = Field(default_factory=MissingEosSpec)
    max_grad_norm: float = Field(1.0, gt=0)
    evaluate_every: int = Field(10, gt=0, description="steps between two looks at the held-out prompts")
    checkpoint_every: int | None = Field(None, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto = fp32: the ratio is sensitive"
    )

    @model_validator(mode="after")
    def _minibatches_divide(self) -> Self:
        if self.prompts_per_step * self.samples_per_prompt % self.minibatches:
            raise ValueError(
                f"prompts_per_step x samples_per_prompt must be a multiple of minibatches = {self.minibatches}"
            )
        return self


class PpoRecipe(RewardedRecipe):
    """Reinforcement learning from a reward model, KL-regularised to the start model."""

    stage: Literal["ppo"]
    reward: list[RewardSource] = Field(min_length=1)
    data: PromptsSpec
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)
    ppo: PpoSpec
