"""One recipe per stage, and the pipeline that hands their artifacts on."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec
from aligner.recipe.data import DataSpec, PairDataSpec, PretrainDataSpec, SourceSpec
from aligner.recipe.evaluate import EvaluateRecipe
from aligner.recipe.group import GrpoRecipe, RejectionRecipe, RlooRecipe
from aligner.recipe.model import ArchitectureSpec, FrozenModelSpec, TokenizerSpec
from aligner.recipe.perplexity import PerplexityRecipe
from aligner.recipe.ppo import PpoRecipe
from aligner.recipe.preference import DpoRecipe, KtoRecipe
from aligner.recipe.selfinstruct import SelfInstructSpec
from aligner.recipe.stage import StageRecipe, TunedRecipe
from aligner.recipe.training import SamplingSpec, SftTrainSpec, TrainSpec


class PretrainRecipe(StageRecipe):
    """Documents to a small base model with its own tokenizer."""

    stage: Literal["pretrain"]
    model: ArchitectureSpec = Field(default_factory=ArchitectureSpec)
    tokenizer: TokenizerSpec = Field(default_factory=TokenizerSpec)
    data: PretrainDataSpec
    train: TrainSpec


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


class SelfInstructRecipe(StageRecipe):
    """New instructions with solved instances, written by a model after seed tasks."""

    stage: Literal["selfinstruct"]
    model: FrozenModelSpec
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
    | DpoRecipe
    | KtoRecipe
    | GrpoRecipe
    | RlooRecipe
    | RejectionRecipe
    | EvaluateRecipe
    | SelfInstructRecipe
    | PerplexityRecipe
    | PipelineRecipe,
    Field(discriminator="stage"),
]
RECIPES: dict[str, type[StageRecipe]] = {
    "pretrain": PretrainRecipe,
    "sft": SftRecipe,
    "reward": RewardRecipe,
    "ppo": PpoRecipe,
    "dpo": DpoRecipe,
    "kto": KtoRecipe,
    "grpo": GrpoRecipe,
    "rloo": RlooRecipe,
    "rejection": RejectionRecipe,
    "evaluate": EvaluateRecipe,
    "selfinstruct": SelfInstructRecipe,
    "perplexity": PerplexityRecipe,
    "pipeline": PipelineRecipe,
}
