"""What is cleaned out of rows."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec

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


class PerplexitySpec(Spec):
    """Rows that a language model finds too hard or too easy to guess (CCNet, arXiv:1911.00359, 3.2).

    They are judged as they stand in their files, before anything is changed in them.
    """

    scores: str = Field(
        description='what the stage perplexity measured: its run folder, its scores.jsonl, or "@stage" in a pipeline'
    )
    min_bits_per_byte: float | None = Field(None, gt=0, description="easier rows go: boilerplate, repetition")
    max_bits_per_byte: float | None = Field(None, gt=0, description="harder rows go: noise, other languages")
    quantiles: list[float] | None = Field(
        None, description="[lowest, highest] share of all scores, as in [0.05, 0.9]; rows outside go"
    )

    @property
    def to_come(self) -> bool:
        """Whether a stage of the pipeline is yet to say where the scores lie."""
        return self.scores.startswith("@")

    @model_validator(mode="after")
    def _bounds_make_sense(self) -> Self:
        low, high, shares = self.min_bits_per_byte, self.max_bits_per_byte, self.quantiles
        if low is None and high is None and shares is None:
            raise ValueError("no bounds: give min_bits_per_byte, max_bits_per_byte or quantiles")
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_bits_per_byte = {low} is above max_bits_per_byte = {high}")
        if shares is not None and not (len(shares) == 2 and 0 <= shares[0] < shares[1] <= 1):
            raise ValueError(f"quantiles = {shares}: give [lowest, highest], both from 0 to 1")
        return self


class CleanSpec(Spec):
    """Cleaning of documents before pretraining (survey arXiv:2303.18223, 4.1.2).

    The order is fixed, whatever the order of keys: perplexity, repair, mask, filters, exact repeats, near duplicates.
    """

    perplexity: PerplexitySpec | None = Field(
        None,
        description="drop rows by their bits per byte under a model, which the stage perplexity measures",
    )
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
