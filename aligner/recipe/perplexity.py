"""The recipe that measures how hard rows are for a model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.data import SourceSpec
from aligner.recipe.model import FrozenModelSpec
from aligner.recipe.stage import StageRecipe

# Of a source: what says which of its rows are trained on, how often and in which words.
_OF_TRAINING = ("cap", "weight", "share", "epochs", "templates", "shots", "rationale")


class PerplexityRecipe(StageRecipe):
    """Bits per byte of every row of some sources under a model, for `clean.perplexity` of other recipes."""

    stage: Literal["perplexity"]
    model: FrozenModelSpec
    sources: list[SourceSpec] = Field(
        min_length=1, description="training and held-out sources of the recipe that is to drop rows"
    )
    kind: Literal["document", "conversation", "pair", "prompt"] = Field(
        "document",
        description="rows that recipe reads: pretrain document, sft conversation, reward pair, ppo prompt",
    )
    block_length: int | None = Field(
        None,
        gt=1,
        description="tokens of a row that are read together; the model's context, at most 1024, when left out",
    )
    rows_per_device: int = Field(16, gt=0, description="rows in one forward pass on one device")

    @model_validator(mode="after")
    def _every_row_is_measured(self) -> Self:
        for number, source in enumerate(self.sources):
            for name in _OF_TRAINING:
                if getattr(source, name) != SourceSpec.model_fields[name].default:
                    raise ValueError(f"sources.{number}.{name}: every row is measured, once; leave it out")
        return self
