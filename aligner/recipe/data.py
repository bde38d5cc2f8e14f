"""Which rows, from where, in what shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from aligner.recipe.base import Spec
from aligner.recipe.clean import CleanSpec, RowCleanSpec
from aligner.recipe.mixture import MixtureSpec
from aligner.recipe.place import PlaceSpec

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
PlainFormat = Literal["text", "html", "warc", "documents"]
DocumentFormat = Literal[PlainFormat, ChatFormat, "hh"]
ConversationFormat = Literal[ChatFormat, "tasks"]
SftFormat = Literal[ConversationFormat, PlainFormat]
PromptFormat = Literal["prompts", "mt_bench", ChatFormat, "hh"]
Format = Literal["auto", DocumentFormat, SftFormat, PairFormat, PromptFormat]

SHARE_TOLERANCE = 1e-6  # of 1: thirds are written with some digits


class SourceSpec(PlaceSpec):
    """One source of a mixture: rows in one format."""

    format: Format = Field("auto", description="how the rows are written; auto looks at the first row")
    skip_bad_rows: int = Field(
        0,
        ge=0,
        description="rows that cannot be read are left out up to so many, counted (bad_row) and listed; more: an error",
    )
    cap: int | None = Field(
        None, gt=0, description="at most this many rows of each file, or task (FLAN's cap)"
    )
    weight: float = Field(1.0, gt=0, description="copies of each row per epoch; 0.5 takes a random half")
    criteria: dict[str, float] = Field(
        default_factory=dict,
        description="ratings: weight of each criterion that counts; rules: cost of each broken one; left out: 1 each",
    )
    templates: Literal["all", "original", "none"] = Field(
        "all",
        description="tasks: which are used; original: those that do not turn the task around; none: the inputs alone",
    )
    shots: int | list[int] = Field(
        0, description="tasks: solved rows shown before each row, from the training rows; or [fewest, most]"
    )
    rationale: float = Field(
        0.0, ge=0, le=1, description="tasks: share of rows that are answered with their reasons"
    )
    share: float | None = Field(
        None, gt=0, le=1, description="of an epoch, with a mixture; sources without one divide what is left"
    )
    epochs: float | None = Field(
        None, gt=0, description="times an epoch reads each row, with mixture by: epochs; 1 when left out"
    )

    @model_validator(mode="after")
    def _a_stream_is_never_whole(self) -> Self:
        if self.streaming and self.cap is not None:
            raise ValueError("cap: draws from all rows, and a stream is never read whole; lower take")
        return self

    @model_validator(mode="after")
    def _criteria_are_of_feedback(self) -> Self:
        if self.criteria and self.format not in ("auto", "ratings", "rules"):
            raise ValueError(f"criteria: for format ratings or rules alone, not {self.format}; leave it out")
        return self

    @property
    def of_tasks(self) -> str:
        """The first key that is set and says something of tasks alone; "" where none does."""
        changed = {"templates": self.templates != "all", "shots": self.shots, "rationale": self.rationale}
        return next((key for key, asked in changed.items() if asked), "")

    @property
    def shot_range(self) -> tuple[int, int]:
        """The fewest and the most solved rows that are shown."""
        given = self.shots if isinstance(self.shots, list) else [self.shots]
        return given[0], given[-1]

    @model_validator(mode="after")
    def _tasks_alone_are_rendered(self) -> Self:
        if self.of_tasks and self.format not in ("auto", "tasks"):
            raise ValueError(f"{self.of_tasks}: for format tasks alone, not {self.format}; leave it out")
        if isinstance(self.shots, list) and (len(self.shots) != 2 or self.shots != sorted(self.shots)):
            raise ValueError(f"shots = {self.shots}: give a number, or [fewest, most]")
        if self.shot_range[0] < 0:
            raise ValueError(f"shots = {self.shots}: there are none below 0")
        return self

    @property
    def plain(self) -> bool:
        """Whether it is plain text, all of it to be learnt, since its format says so."""
        return self.format in get_args(PlainFormat)


class HoldoutSpec(Spec):
    """Rows never trained on: own sources, whole families, or a number of rows taken out of the training sources."""

    rows: int = Field(
        0,
        ge=0,
        description="rows drawn from the training sources and withheld; with families: those measured (0: all)",
    )
    families: list[str] = Field(
        default_factory=list,
        description="withheld whole: rows of this family or kind, or of a file of this name (without suffix)",
    )
    sources: list[SourceSpec] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.sources and (self.rows or self.families):
            raise ValueError(f"give either {'rows' if self.rows else 'families'} or sources, not both")
        return self


class DecontaminateSpec(Spec):
    """Rows of evaluations that training may not see (survey arXiv:2303.18223, 4.1; GPT-3 arXiv:2005.14165, C).

    A training row is contaminated where it asks what an evaluation row asks, or shares `ngram` words in a row with one;
    case and punctuation aside, system turns too.
    """

    against: list[SourceSpec] = Field(default_factory=list, description="evaluation files, in any format")
    holdout: bool = Field(False, description="compare with the recipe's own held-out rows, too")
    ngram: int | None = Field(13, gt=0, description="words in a row; null: the same question alone")
    ignore_above: int | None = Field(
        None, gt=0, description="words that more training rows share are a phrase, no leak (GPT-3: 10)"
    )
    near_duplicates: bool = Field(False, description="near repeats of evaluation rows (MinHash), too")
    overlap: Literal["drop", "error"] = Field("drop", description="what becomes of contaminated rows")

    @model_validator(mode="after")
    def _something_to_compare_with(self) -> Self:
        if not (self.against or self.holdout):
            raise ValueError("name evaluation files in against, or set holdout: true")
        return self


class DataSpec(Spec):
    """A mixture of sources, their hold-out, and the longest row in tokens."""

    train: list[SourceSpec] = Field(min_length=1)
    mixture: MixtureSpec | None = Field(
        None, description="shares of the sources; every row once an epoch (or `weight` times) when left out"
    )
    holdout: HoldoutSpec = Field(default_factory=HoldoutSpec)
    decontaminate: DecontaminateSpec | None = Field(
        None, description="what evaluations hold is not trained on"
    )
    clean: RowCleanSpec = Field(default_factory=RowCleanSpec)
    max_length: int = Field(
        256, gt=1, description="longest row in tokens; longer prompts are cut from the left"
    )
    cut_answers: float = Field(
        0.01, ge=0, le=1, description="share of rows whose answer may be cut before it is an error"
    )

    @model_validator(mode="after")
    def _sources_fit_the_mixture(self) -> Self:
        if faults := [*mixture_faults(self.mixture, self.train), *stream_faults(self.holdout, self.train)]:
            raise ValueError("; ".join(faults))
        return self


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
    decontaminate: DecontaminateSpec | None = Field(
        None, description="what evaluations hold is not trained on"
    )
    clean: CleanSpec = Field(default_factory=CleanSpec)
    block_length: int = Field(128, gt=1, description="tokens in a training block")
    isolate_documents: bool = Field(False, description="no attention between documents that share a block")

    @model_validator(mode="after")
    def _streams_are_never_whole(self) -> Self:
        early = self.curriculum.sources if self.curriculum else []
        faults = stream_faults(self.holdout, self.train)
        if faults := [*faults, *stream_faults(self.holdout, early, part="curriculum.sources")]:
            raise ValueError("; ".join(faults))
        return self

    @property
    def sources(self) -> list[SourceSpec]:
        """Every source there is to train on, early or always, or held out."""
        early = self.curriculum.sources if self.curriculum else []
        return [*self.train, *early, *self.holdout.sources]


def stream_faults(holdout: HoldoutSpec, sources: Sequence[SourceSpec], *, part: str = "train") -> list[str]:
    """What is asked of sources that needs all of their rows, and they are streams."""
    streams = [number for number, source in enumerate(sources) if source.streaming]
    if not (streams and holdout.families):
        return []
    what = f"holdout.families: needs all rows, and {part}.{streams[0]} is a stream"
    return [f"{what}; withhold rows: N, or sources of their own"]


def mixture_faults(mixture: MixtureSpec | None, sources: Sequence[SourceSpec]) -> list[str]:
    """What sources say that their mixture has no use for, or leave out that it needs."""
    shares = [source.share for source in sources if source.share is not None]
    by = mixture.by if mixture else None
    faults = []
    for number, source in enumerate(sources):
        if source.share is not None and by in (None, "epochs"):
            remedy = "leave it out" if by else "add mixture: {by: share}"
            faults.append(f"train.{number}.share: a share of nothing; {remedy}")
        if source.epochs is not None and by != "epochs":
            faults.append(f"train.{number}.epochs: goes with mixture: {{by: epochs}}, and with nothing else")
        if mixture and source.weight != 1:
            faults.append(f"train.{number}.weight: the mixture says how often rows come; leave weight out")
        if by == "share" and source.share is None:
            faults.append(f"train.{number}.share: by: share needs one of every source")
        if source.streaming and by in ("examples", "temperature") and source.share is None:
            faults.append(
                f"train.{number}.streaming: by: {by} goes by the number of all rows; give it a share"
            )
    total = sum(shares)
    if by == "share" and len(shares) == len(sources) and abs(total - 1) > SHARE_TOLERANCE:
        faults.append(f"the shares add up to {total:.6g}; they must add up to 1")
    if by in ("examples", "temperature") and shares:
        if len(shares) == len(sources):
            faults.append(f"every source has a share, and none is left for by: {by}; use by: share")
        elif total >= 1:
            faults.append(f"the shares add up to {total:.6g}, and nothing is left for the other sources")
    return faults
