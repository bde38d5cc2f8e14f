"""What every recipe of a stage has."""

from __future__ import annotations

from pydantic import Field

from aligner.recipe.base import Spec
from aligner.recipe.model import ModelSpec


class StageRecipe(Spec):
    """What every stage has: a seed and a run folder."""

    stage: str
    seed: int = Field(0, ge=0, lt=2**32, description="decides every random choice of the stage")
    output: str = Field(description="run folder")
    root: str | None = Field(
        None,
        description="folder the sources' paths start from; the working or the recipe's folder when left out",
    )


class TunedRecipe(StageRecipe):
    """What every stage that starts from a model has."""

    model: ModelSpec
