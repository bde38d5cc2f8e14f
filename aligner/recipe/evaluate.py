"""The recipe of an evaluation: the models, and the suites that they are asked."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec
from aligner.recipe.data import SourceSpec
from aligner.recipe.stage import StageRecipe
from aligner.recipe.training import SamplingSpec


class SuitesSpec(Spec):
    """What is measured; every list may be left out."""

    documents: list[SourceSpec] = Field(default_factory=list, description="held-out bits per byte")
    tasks: dict[str, Annotated[list[SourceSpec], Field(min_length=1)]] = Field(
        default_factory=dict, description="exact match per family, by suite name"
    )
    answer_nats: bool = Field(
        False,
        description="for the tasks also -log probability of their accepted answers; a pass over each of them",
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
