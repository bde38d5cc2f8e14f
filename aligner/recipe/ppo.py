"""The recipe of reinforcement learning: rewards, prompts, and the numbers of PPO."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec
from aligner.recipe.clean import RowCleanSpec
from aligner.recipe.data import DecontaminateSpec, SourceSpec
from aligner.recipe.stage import TunedRecipe
from aligner.recipe.training import SamplingSpec


class HttpSpec(Spec):
    """A server that scores responses."""

    url: str = Field(description='gets {"prompts", "responses", "finished"} as JSON, gives a list of floats')
    timeout_seconds: float = Field(30.0, gt=0, description="of one try")
    retries: int = Field(3, ge=0, description="further tries where none answers, or it says 429 or 5xx")

    @model_validator(mode="after")
    def _is_an_address(self) -> Self:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f'"{self.url}" is no address; it begins with http:// or https://')
        return self


class RewardSource(Spec):
    """One reward: a reward run, a Python function, rules, or a server; several are added up by weight."""

    model: str | None = Field(
        None,
        description='reward run folder or "@stage"; one with another tokenizer reads the texts',
    )
    function: str | None = Field(
        None, description="module:function over (rows, responses, finished) -> floats"
    )
    rules: str | None = Field(
        None,
        description='JSON lines of {"rule", "forbids" or "requires": pattern, "weight"}; a broken one costs that',
    )
    http: HttpSpec | None = Field(None, description="a server that scores responses")
    dense: bool = Field(
        False, description="the function is given each response as its tokens' texts and rewards each token"
    )
    clip: float | None = Field(
        None, gt=0, description="beyond this and its negative the reward counts as that"
    )
    weight: float = 1.0

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(kind is not None for kind in (self.model, self.function, self.rules, self.http)) != 1:
            raise ValueError("give one of model, function, rules and http")
        if self.dense and not self.function:
            raise ValueError("dense is for a function alone; leave it out")
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

    mode: Literal["replace", "subtract", "mask"] = Field(
        "replace", description="mask: it is scored and told of, and nothing is learnt from it"
    )
    value: float = Field(
        -1.0, description="in units of the normalised reward; subtract takes it off the score"
    )

    @model_validator(mode="after")
    def _mask_has_no_value(self) -> Self:
        if self.mode == "mask" and self.value != -1.0:
            raise ValueError(f"value = {self.value}: a masked response earns nothing; leave it out")
        return self


class AdaptiveKlSpec(Spec):
    """The controller of Ziegler et al. 2019 (arXiv:1909.08593, 2.2) over kl_coef, which is then where it starts."""

    target: float = Field(
        gt=0, description="KL to the reference to steer for, in nats summed over a response"
    )
    horizon: int = Field(
        10_000, gt=0, description="episodes in which kl_coef changes by about a fifth at most"
    )


class LimitSpec(Spec):
    """How much a figure may be, and what becomes of a step that has more."""

    limit: float = Field(gt=0)
    act: Literal["warn", "stop"] = Field(
        "stop", description="stop: before the update, with a checkpoint of the weights as they are then"
    )


class GuardSpec(Spec):
    """When a step warns, or stops the run before its update. What is not finite always stops it."""

    kl: LimitSpec | None = Field(None, description="mean KL to the reference, in nats per response")
    value: LimitSpec | None = Field(None, description="largest |value| of a token, in units of the reward")
    length: LimitSpec | None = Field(
        default_factory=lambda: LimitSpec(limit=2.0, act="warn"),
        description="mean tokens of a response, over those of the first step",
    )
    zero_gradient: Literal["warn", "stop"] = Field(
        "warn", description="every advantage is 0, or no response counts: the step teaches the policy nothing"
    )


class PpoSpec(Spec):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347) as RLHF uses it."""

    steps: int = Field(gt=0, description="rollout batches")
    prompts_per_step: int = Field(64, gt=0, description="episodes in a rollout batch")
    samples_per_prompt: int = Field(1, gt=0, description="responses to each prompt of a step")
    epochs: int = Field(4, gt=0, description="passes over a rollout batch")
    minibatches: int = Field(1, gt=0, description="optimiser steps per pass")
    rows_per_device: int | None = Field(
        None,
        gt=0,
        description="responses in one forward pass; when left out, what fits 4096 tokens (65536 on a GPU)",
    )
    learning_rate: float = Field(1e-4, gt=0, description="at the start; falls linearly to 0")
    value_learning_rate: float | None = Field(
        None, gt=0, description="of the value head and its adapter; learning_rate when left out"
    )
    gain_learning_rate: float | None = Field(
        None, gt=0, description="of trained vectors (a norm's gains); learning_rate when left out"
    )
    clip: float = Field(0.2, gt=0)
    clip_high: float | None = Field(None, gt=0, description="how far a ratio may rise; clip when left out")
    dual_clip: float | None = Field(
        None, gt=1, description="largest ratio a token counts with that was worse than expected (1912.09729)"
    )
    value_clip: float = Field(0.2, gt=0)
    value_coef: float = Field(0.1, ge=0)
    value: Literal["head", "adapter"] = Field(
        "head",
        description="what the critic is: a head on the policy's hidden states; adapter: a head on those of an adapter "
        "of its own, shaped as model.lora, over the same frozen backbone",
    )
    value_init: Literal["zero", "reward"] = Field(
        "zero",
        description="reward: the value head starts as the reward model's score head, and its adapter as that one's "
        "where that stands on the same backbone",
    )
    value_warmup_steps: int = Field(0, ge=0, description="first steps, which train the critic alone")
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)
    kl_coef: float = Field(0.05, ge=0, description="beta: reward lost per nat of log(policy / reference)")
    adaptive_kl: AdaptiveKlSpec | None = Field(
        None, description="kl_coef follows the KL; fixed when left out"
    )
    target_kl: float | None = Field(
        None,
        gt=0,
        description="nats per token from the sampling policy; a minibatch beyond it ends the step's updates",
    )
    entropy_coef: float = Field(0.0, ge=0, description="weight of the mean entropy per token, in nats")
    missing_eos: MissingEosSpec = Field(default_factory=MissingEosSpec)
    max_grad_norm: float = Field(1.0, gt=0)
    guards: GuardSpec = Field(default_factory=GuardSpec)
    evaluate_every: int = Field(10, gt=0, description="steps between two looks at the held-out prompts")
    keep_best: Literal["gold", "proxy"] | None = Field(
        None,
        description="keep the policy of the look with the highest such reward; the last one when left out",
    )
    checkpoint_every: int | None = Field(None, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto = fp32: the ratio is sensitive"
    )

    @property
    def episodes_per_step(self) -> int:
        """Responses in a rollout batch."""
        return self.prompts_per_step * self.samples_per_prompt

    @model_validator(mode="after")
    def _minibatches_divide(self) -> Self:
        if self.episodes_per_step % self.minibatches:
            raise ValueError(
                f"prompts_per_step x samples_per_prompt must be a multiple of minibatches = {self.minibatches}"
            )
        return self

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.value_warmup_steps >= self.steps:
            raise ValueError(
                f"value_warmup_steps = {self.value_warmup_steps} leaves none of {self.steps} steps to the policy"
            )
        return self

    @model_validator(mode="after")
    def _kl_can_be_steered(self) -> Self:
        if self.adaptive_kl and self.kl_coef == 0:
            raise ValueError(
                "adaptive_kl multiplies kl_coef, and kl_coef = 0 stays 0; give it a start above 0"
            )
        if self.adaptive_kl and self.adaptive_kl.horizon < self.episodes_per_step:
            raise ValueError(
                f"adaptive_kl.horizon = {self.adaptive_kl.horizon} is shorter than a step of"
                f" {self.episodes_per_step} episodes; make it at least as long"
            )
        return self


class PtxSpec(Spec):
    """Documents that the policy goes on learning beside the reward, to forget less (InstructGPT, arXiv:2203.02155)."""

    sources: list[SourceSpec] = Field(min_length=1, description="documents, packed to blocks")
    coef: float = Field(gt=0, description="weight of their mean cross-entropy per token beside PPO's loss")
    rows_per_step: int = Field(32, gt=0, description="blocks in each optimiser step")
    block_length: int = Field(128, gt=1, description="tokens in a block")


class PpoRecipe(RewardedRecipe):
    """Reinforcement learning from a reward model, KL-regularised to the start model."""

    stage: Literal["ppo"]
    reward: list[RewardSource] = Field(min_length=1)
    data: PromptsSpec
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)
    ppo: PpoSpec
    ptx: PtxSpec | None = Field(None, description="documents to go on learning beside the reward")

    @property
    def numbers(self) -> PpoSpec:
        """The section that is named after the stage."""
        return self.ppo

    @model_validator(mode="after")
    def _the_best_is_looked_for(self) -> Self:
        if self.ppo.keep_best and not self.data.holdout:
            raise ValueError("ppo.keep_best compares looks at held-out prompts; give data.holdout")
        return self

    @model_validator(mode="after")
    def _value_head_has_a_model(self) -> Self:
        models = [source.model for source in self.reward if source.model]
        if self.ppo.value_init == "reward" and len(models) != 1:
            raise ValueError(
                f"ppo.value_init: reward starts from the one reward model, and reward names {len(models)}"
            )
        return self
