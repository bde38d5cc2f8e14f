"""Which rows, from where, in what shares."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec

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
SftFormat = Literal[ChatFormat, "tasks"]
DocumentFormat = Literal["text", "html", "warc", "documents", ChatFormat, "hh"]
PromptFormat = Literal["prompts", "mt_bench", ChatFormat, "hh"]
Format = Literal["auto", DocumentFormat, SftFormat, PairFormat, PromptFormat]

CleanRule = Literal[
    "gopher_quality",
    "gopher_word_count",
    "gopher_word_length",
    "gopher_symbols",
    "gopher_bullets",
    "gopher_ellipsis_lines",
    "gopher_alphabetic",
    "gopher_stop_words",
    "gopher_repetition",
    "gopher_duplicate_lines",
    "gopher_duplicate_paragraphs",
    "gopher_duplicate_line_chars",
    "gopher_duplicate_paragraph_chars",
    "gopher_top_ngrams",
    "gopher_duplicate_ngrams",
    "c4",
    "c4_unpunctuated_lines",
    "c4_short_lines",
    "c4_javascript_lines",
    "c4_policy_lines",
    "c4_lorem_ipsum",
    "c4_curly_brace",
    "c4_few_sentences",
]
Personal = Literal["email", "iban", "card", "ip", "phone"]


class SourceSpec(Spec):
    """One source of a mixture: files in one format."""

    path: str | list[str] = Field(description="file, folder or glob; several as a list")
    format: Format = Field("auto", description="how the rows are written; auto looks at the first row")
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


class CleanSpec(Spec):
    """Cleaning of documents before pretraining (survey arXiv:2303.18223, 4.1.2).

    The order is fixed, whatever the order of keys: repair, mask, filters, exact repeats, near duplicates.
    """

    repair: bool = Field(False, description="mend text of a wrong encoding (ftfy; extra data)")
    mask: list[Personal] = Field(
        default_factory=list, description="personal data to be replaced by <email>, <phone> and so on"
    )
    rules: list[CleanRule] = Field(
        default_factory=list,
        description="gopher_quality, gopher_repetition, c4, or single rules of theirs; they are for English prose",
    )
    min_chars: int = Field(20, ge=0)
    max_chars: int | None = Field(1_000_000, gt=0, description="null: no limit")
    min_letter_share: float = Field(0.4, ge=0, le=1, description="letters and spaces over all characters")
    words: str | list[str] = Field(
        default_factory=list, description="files of words that drop a text, one word or phrase a line"
    )
    max_words: float = Field(
        0.0, ge=0, lt=1, description="share of a text's words that may be listed; 0: none"
    )
    languages: list[str] = Field(
        default_factory=list, description="ISO 639-1 codes of the languages that stay (py3langid; extra data)"
    )
    deduplicate: bool = Field(True, description="drop exact repeats, whitespace and case aside")
    near_duplicates: bool = Field(False, description="drop near repeats (MinHash); the first stays")


class RowCleanSpec(CleanSpec):
    """Cleaning of conversations and pairs: as that of documents, but every step is off by default.

    All contents of a row are judged together, as one text; repair and mask change each of them.
    """

    min_chars: int = Field(0, ge=0)
    max_chars: int | None = Field(None, gt=0, description="null: no limit")
    min_letter_share: float = Field(0.0, ge=0, le=1, description="letters and spaces over all characters")
    deduplicate: bool = Field(False, description="drop exact repeats, whitespace and case aside")

    @model_validator(mode="after")
    def _lines_stay(self) -> Self:
        cut = [rule for rule in self.rules if rule.startswith("c4_") and rule.endswith("_lines")]
        if cut:
            raise ValueError(f"{' and '.join(cut)}: cuts lines, for documents alone; leave it out")
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
