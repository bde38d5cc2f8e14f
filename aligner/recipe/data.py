"""Which rows, from where, in what shares."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec
from aligner.recipe.clean import CleanSpec, RowCleanSpec

ChatFormat = Literal[
    "messages",
    "alpaca",
    "self_instruct",
    "gsm8k",
    "dolly",
    "completions",
    "sharegpt",
    "moss",
    "natural_instructions",
    "flan_cot",
    "aqua",
    "mmlu",
    "belle",
    "oasst",
]
PairFormat = Literal[
    "pairs",
    "rankings",
    "hh",
    "sharegpt_pairs",
    "kto",
    "alpaca_rankings",
    "alpaca_eval",
    "oasst",
    "ratings",
    "rules",
]
DocumentFormat = Literal["text", "html", "warc", "documents", ChatFormat, "hh"]
PromptFormat = Literal["prompts", "mt_bench", ChatFormat, "hh"]
Format = Literal["auto", DocumentFormat, ChatFormat, PairFormat, PromptFormat]


class SourceSpec(Spec):
    """One source of a mixture: files in one format."""

    path: str | list[str] = Field(description="file, folder or glob; several as a list")
    format: Format = Field("auto", description="how the rows are written; auto looks at the first row")
    cap: int | None = Field(None, gt=0, description="at most this many rows of each file (FLAN's cap)")
    weight: float = Field(1.0, gt=0, description="copies of each row per epoch; 0.5 takes a random half")
    criteria: dict[str, float] = Field(
        default_factory=dict,
        description="ratings: weight of each criterion that counts; rules: cost of each broken one; left out: 1 each",
    )

    @model_validator(mode="after")
    def _criteria_are_of_feedback(self) -> Self:
        if self.criteria and self.format not in ("auto", "ratings", "rules"):
            raise ValueError(f"criteria: for format ratings or rules alone, not {self.format}; leave it out")
        return self


class HoldoutSpec(Spec):
    """Rows never trained on: own sources, or a number of rows taken out of the training sources."""

    rows: int = Field(0, ge=0, description="rows drawn from the training sources and withheld")
    sources: list[SourceSpec] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.rows and self.sources:
            raise ValueError("give either rows or sources, not both")
        return self


class DataSpec(Spec):
    """A mixture of sources, their hold-out, and the longest row in tokens."""

    train: list[SourceSpec] = Field(min_length=1)
    holdout: HoldoutSpec = Field(default_factory=HoldoutSpec)
    clean: RowCleanSpec = Field(default_factory=RowCleanSpec)
    max_length: int = Field(
        256, gt=1, description="longest row in tokens; longer prompts are cut from the left"
    )
    cut_answers: float = Field(
        0.01, ge=0, le=1, description="share of rows whose answer may be cut before it is an error"
    )


class PairRules(Spec):
    """What is done with pairs that say something of each other; over all sources of the mixture."""

    conflicts: Literal["majority", "drop", "keep"] = Field(
        "majority",
        description="same answers, opposite order: the order with more rows stays (of a draw none), none, or all",
    )
    repeats: Literal["keep", "once"] = Field("keep", description="rows of the same pair: all count, or one")
    weigh: Literal["pair", "prompt"] = Field(
        "pair", description="what counts once in the loss; prompt: its n pairs count 1/n each (InstructGPT)"
    )


class PairDataSpec(DataSpec):
    """A mixture of preferences."""

    pairs: PairRules = Field(default_factory=PairRules)


class CurriculumSpec(Spec):
    """Documents for the first part of pretraining alone (survey arXiv:2303.18223, 4.1.3, data curriculum).

    They take slots of the same training: the number of steps stays what it is without them.
    """

    sources: list[SourceSpec] = Field(min_length=1)
    until: float = Field(
        0.33, gt=0, le=1, description="share of the training over which they are mixed in, ever more rarely"
    )


class PretrainDataSpec(Spec):
    """Documents for pretraining: cleaned, then packed to blocks."""

    train: list[SourceSpec] = Field(min_length=1)
    curriculum: CurriculumSpec | None = Field(
        None, description="documents that come early and only once; the tokenizer does not learn from them"
    )
    holdout: HoldoutSpec = Field(default_factory=HoldoutSpec)
    clean: CleanSpec = Field(default_factory=CleanSpec)
    block_length: int = Field(128, gt=1, description="tokens in a training block")
    isolate_documents: bool = Field(False, description="no attention between documents that share a block")

    @property
    def sources(self) -> list[SourceSpec]:
        """Every source there is: trained on, early or always, and held out."""
        early = self.curriculum.sources if self.curriculum else []
        return [*self.train, *early, *self.holdout.sources]
