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
