"""Recipes of preference tuning without a reward model: DPO and its kin."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec
from aligner.recipe.data import PairDataSpec, SourceSpec
from aligner.recipe.ppo import RewardedRecipe
from aligner.recipe.training import SamplingSpec, TrainSpec


class WatchSpec(Spec):
    """Prompts that are answered while training goes on, as PPO's held-out ones are; nothing is learnt from them."""

    holdout: list[SourceSpec] = Field(default_factory=list, description="held-out prompts")
    holdout_rows: int = Field(128, gt=0, description="held-out prompts answered at each evaluation")
    max_prompt_tokens: int = Field(192, gt=0, description="longer prompts are cut from the left")


class PreferenceRecipe(RewardedRecipe):
    """Pairs of answers, learnt against the frozen start model."""

    data: PairDataSpec
    train: TrainSpec
    watch: WatchSpec = Field(default_factory=WatchSpec)
    sampling: SamplingSpec = Field(default_factory=SamplingSpec, description="of answers to watch.holdout")

    @model_validator(mode="after")
    def _rewards_have_answers(self) -> Self:
        if self.reward and not self.watch.holdout:
            raise ValueError(
                "reward is measured on answers to watch.holdout, and it is empty; name prompts, or leave reward out"
            )
        return self

    @property
    def numbers(self) -> DpoSpec | KtoSpec:
        """The section that is named after the stage."""
        section: DpoSpec | KtoSpec = getattr(self, self.stage)
        return section


class DpoSpec(Spec):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290) and two losses of its kin."""

    beta: float = Field(0.1, gt=0, description="reward per nat of log(policy / start model); PPO's kl_coef")
    loss: Literal["sigmoid", "hinge", "ipo"] = Field(
        "sigmoid",
        description="sigmoid: DPO; hinge: SLiC (arXiv:2305.10425); ipo: IPO (arXiv:2310.12036), per token",
    )
    nll_coef: float = Field(0.0, ge=0, description="weight of the chosen answers' own nats")


class DpoRecipe(PreferenceRecipe):
    """A policy from pairs of answers, without a reward model."""

    stage: Literal["dpo"]
    dpo: DpoSpec = Field(default_factory=DpoSpec)


class KtoSpec(Spec):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv:2402.01306): answers count each by itself."""

    beta: float = Field(0.1, gt=0, description="reward per nat of log(policy / start model); PPO's kl_coef")
    loss: Literal["kto", "apo_zero"] = Field(
        "kto",
        description="kto: against the mean gain of answers to other prompts; apo_zero: against 0 (arXiv:2408.06266)",
    )
    desirable_weight: float = Field(1.0, gt=0, description="of the loss of chosen answers")
    undesirable_weight: float = Field(1.0, gt=0, description="of the loss of rejected answers")


class KtoRecipe(PreferenceRecipe):
    """A policy from answers that are good or bad, each by itself; read from pairs, one of each."""

    stage: Literal["kto"]
    kto: KtoSpec = Field(default_factory=KtoSpec)

    @model_validator(mode="after")
    def _steps_have_other_prompts(self) -> Self:
        if self.kto.loss == "kto" and self.train.rows_per_step == 1:
            raise ValueError(
                "rows_per_step = 1: kto compares with answers to the step's other prompts, none here; take 2 or more"
            )
        return self
