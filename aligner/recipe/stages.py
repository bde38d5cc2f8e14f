"""One recipe per stage, and the pipeline that hands their artifacts on."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec
from aligner.recipe.clean import RowCleanSpec
from aligner.recipe.data import DataSpec, DecontaminateSpec, PairDataSpec, PretrainDataSpec, SourceSpec
from aligner.recipe.model import ArchitectureSpec, ModelSpec, TokenizerSpec
from aligner.recipe.selfinstruct import GeneratorSpec, SelfInstructSpec
from aligner.recipe.training import SamplingSpec, SftTrainSpec, TrainSpec


class StageRecipe(Spec):
    """What every stage has: a seed and a run folder."""

    stage: str
    seed: int = Field(0, ge=0, lt=2**32, description="decides every random choice of the stage")
    output: str = Field(description="run folder")
    root: str | None = Field(
        None,
        description="folder the sources' paths start from; the working or the recipe's folder when left out",
    )


class PretrainRecipe(StageRecipe):
    """Documents to a small base model with its own tokenizer."""

    stage: Literal["pretrain"]
    model: ArchitectureSpec = Field(default_factory=ArchitectureSpec)
    tokenizer: TokenizerSpec = Field(default_factory=TokenizerSpec)
    data: PretrainDataSpec
    train: TrainSpec


class TunedRecipe(StageRecipe):
    """What every stage that starts from a model has."""

    model: ModelSpec


class SftRecipe(TunedRecipe):
    """Supervised fine-tuning on conversations, loss on the answers only."""

    stage: Literal["sft"]
    data: DataSpec
    train: SftTrainSpec

    @model_validator(mode="after")
    def _rows_fit_their_packs(self) -> Self:
        if (self.train.pack_length or self.data.max_length) < self.data.max_length:
            raise ValueError(
                f"train.pack_length = {self.train.pack_length} does not hold a row of"
                f" data.max_length = {self.data.max_length} tokens, and packing cuts none; make it at least as long"
            )
        return self


class RewardRecipe(TunedRecipe):
    """A Bradley-Terry reward model on pairs."""

    stage: Literal["reward"]
    data: PairDataSpec
    train: TrainSpec
    score: Literal["head", "likelihood"] = Field(
        "head",
        description="head: a new layer over the last token; likelihood: the answer's log-likelihood times beta",
    )
    beta: float = Field(1.0, gt=0, description="reward per nat, where the score is the likelihood")
    nll_coef: float = Field(
        0.0, ge=0, description="weight of the chosen answers' own nats, where the score is the likelihood"
    )
    normalise_on: list[SourceSpec] = Field(
        default_factory=list,
        description="prompts; the start model answers them and the rewards' mean and std are stored for PPO",
    )
    normalise_rows: int = Field(256, gt=1, description="how many of those prompts")
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)

    @model_validator(mode="after")
    def _beta_is_of_the_likelihood(self) -> Self:
        given = [key for key, unset in (("beta", 1.0), ("nll_coef", 0.0)) if getattr(self, key) != unset]
        if self.score == "head" and given:
            raise ValueError(f"{' and '.join(given)}: for score: likelihood alone; leave out, or set that")
        return self


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


class PpoRecipe(TunedRecipe):
    """Reinforcement learning from a reward model, KL-regularised to the start model."""

    stage: Literal["ppo"]
    reward: list[RewardSource] = Field(min_length=1)
    data: PromptsSpec
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)
    ppo: PpoSpec


class SuitesSpec(Spec):
    """What is measured; every list may be left out."""

    documents: list[SourceSpec] = Field(default_factory=list, description="held-out bits per byte")
    tasks: dict[str, Annotated[list[SourceSpec], Field(min_length=1)]] = Field(
        default_factory=dict, description="exact match per family, by suite name"
    )
    pairs: list[SourceSpec] = Field(default_factory=list, description="preference accuracy")
    prompts: list[SourceSpec] = Field(
        default_factory=list, description="sampled responses: gold reward, KL, length, ..."
    )
    prompt_rows: int = Field(256, gt=0, description="prompts of that suite")
    samples_per_prompt: int = Field(4, gt=0)
    best_of: int = Field(0, ge=0, description="best-of-n by gold of the `reference` model; 0 leaves it out")
    shots: list[int] = Field(
        default_factory=list, description="few-shot prompts tried with the models named in few_shot"
    )
    few_shot: list[str] = Field(default_factory=list, description="models measured with few-shot prompts too")
    examples: list[SourceSpec] = Field(
        default_factory=list,
        description="prompts with gold answers, of training, that few-shot prompts show solved",
    )

    @model_validator(mode="after")
    def _few_shot_is_whole(self) -> Self:
        given = {"shots": self.shots, "few_shot": self.few_shot, "examples": self.examples}
        if any(given.values()) and not all(given.values()):
            missing = [name for name, value in given.items() if not value]
            raise ValueError(
                f"few-shot prompts need shots, few_shot and examples together; missing: {', '.join(missing)}"
            )
        return self


class EvaluateRecipe(StageRecipe):
    """The same questions to several models, side by side."""

    stage: Literal["evaluate"]
    models: dict[str, str] = Field(min_length=1, description='name: run folder, Hub id or "@stage"')
    reward: str | None = Field(None, description="reward run, for preference accuracy and proxy reward")
    reference: str | None = Field(
        None, description="name of the model that KL and paired differences are taken against"
    )
    suites: SuitesSpec
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)
    rows_per_device: int = Field(64, gt=0)

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name in [*([self.reference] if self.reference else []), *self.suites.few_shot]:
            if name not in self.models:
                raise ValueError(f'"{name}" is not among models: {", ".join(self.models)}')
        if self.suites.best_of and self.reference is None:
            raise ValueError("suites.best_of is taken of the reference; name one of the models as reference")
        if "reward" in self.models:
            raise ValueError('"reward" names the results of the reward model; give that model another name')
        return self


class SelfInstructRecipe(StageRecipe):
    """New instructions with solved instances, written by a model after seed tasks."""

    stage: Literal["selfinstruct"]
    model: GeneratorSpec
    seed_tasks: list[SourceSpec] = Field(min_length=1, description="one question and one answer a row")
    selfinstruct: SelfInstructSpec
    sampling: SamplingSpec = Field(default_factory=lambda: SamplingSpec(max_new_tokens=128, temperature=0.7))


class PipelineStage(Spec):
    """A stage of a pipeline: a recipe file, and what to change in it."""

    use: str = Field(description="recipe file, beside this one or from the working folder")
    set: dict[str, object] = Field(
        default_factory=dict, description="dotted keys to change; @stage names an earlier one"
    )


class PipelineRecipe(StageRecipe):
    """Stages in order; each may take an earlier one's artifact as "@name"."""

    stage: Literal["pipeline"]
    stages: dict[str, PipelineStage] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_words(self) -> Self:
        for name in self.stages:
            if not re.fullmatch(r"[\w-]+", name):
                raise ValueError(
                    f'"{name}" names a stage: use letters, digits, - and _, as in folders and results'
                )
        return self


Recipe = Annotated[
    PretrainRecipe
    | SftRecipe
    | RewardRecipe
    | PpoRecipe
    | EvaluateRecipe
    | SelfInstructRecipe
    | PipelineRecipe,
    Field(discriminator="stage"),
]
RECIPES: dict[str, type[StageRecipe]] = {
    "pretrain": PretrainRecipe,
    "sft": SftRecipe,
    "reward": RewardRecipe,
    "ppo": PpoRecipe,
    "evaluate": EvaluateRecipe,
    "selfinstruct": SelfInstructRecipe,
    "pipeline": PipelineRecipe,
}
