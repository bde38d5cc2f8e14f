"""Cleaning of rows (survey arXiv:2303.18223, 4.1.2), in an order that is always the same.

1. rows that a model finds too hard or too easy, as they stand in their files: so the scores hold whatever comes after
2. repair of wrong encodings, of each content
3. masks over personal data, of each content
4. filters: lines that C4 leaves out (plain documents alone), length and letters, named rules, word lists, languages
5. exact repeats
6. near duplicates

What makes two texts equal (2 to 4) comes before what looks for equal ones, and the dearest step sees the fewest rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from aligner.data.cleaning.c4 import cut_lines
from aligner.data.cleaning.language import language_judge
from aligner.data.cleaning.measured import Measured
from aligner.data.cleaning.near import NearDuplicates
from aligner.data.cleaning.perplexity import PerplexityFilter, scores_file
from aligner.data.cleaning.pii import mask_pii
from aligner.data.cleaning.repair import repairer
from aligner.data.cleaning.rules import line_rules, text_rules
from aligner.data.cleaning.words import listed_share, read_words
from aligner.data.keys import KeySet, normalised_hash
from aligner.data.readers import SourceRows
from aligner.data.readers.files import files_sha256, find_files, joined
from aligner.data.rows import Document, Pair, Row, row_contents, row_text, with_contents
from aligner.recipe.clean import CleanSpec

Judge = Callable[[Measured], str | None]


class Change(Protocol):
    """Changes a text, and counts what it changed in it."""

    def __call__(self, text: str, changed: Counter[str]) -> str: ...


def clean_sources(sources: Sequence[SourceRows], spec: CleanSpec) -> None:
    """Clean the rows of all sources together: change them, and drop those with a reason against them.

    Counted in a source's `changed`: `repaired` (contents), `masked_email` and so on (pieces of personal data) and
    `c4_short_lines` and so on (lines that went). Dropped: as `cleaner` says; `no_lines_left` is a document that lost
    all its lines, `answers_equal` a pair whose answers differed in personal data or a broken encoding alone;
    `low_perplexity` and `high_perplexity`, a row that a model finds easier or harder than the recipe allows. Raises
    `DataError` where a library, a word file, a language or the score of a row is missing.
    """
    _drop_by_perplexity(sources, spec)
    changes, lines = _changes(spec), line_rules(spec.rules)
    judge = cleaner(spec)
    for source in sources:
        if changes or lines:
            source.change(partial(_changed, changes=changes, lines=lines, changed=source.changed))
            source.keep(_spoiled)
        source.keep(judge)


def cleaning_files(spec: CleanSpec) -> list[dict[str, str]]:
    """Path (all word files in one) and sha256 of the files that rows are cleaned with, for a data report."""
    words = (
        [{"path": joined(spec.words), "sha256": files_sha256(find_files(spec.words))}] if spec.words else []
    )
    if spec.perplexity is None:
        return words
    scores = scores_file(spec.perplexity.scores)
    return [*words, {"path": spec.perplexity.scores, "sha256": files_sha256([scores])}]


def _drop_by_perplexity(sources: Sequence[SourceRows], spec: CleanSpec) -> None:
    if spec.perplexity is None:
        return
    perplexity = PerplexityFilter(spec.perplexity)
    for source in sources:
        source.keep(perplexity.reason_against)
    perplexity.check()


def cleaner(spec: CleanSpec) -> Callable[[Row], str | None]:
    """A judge of rows that are repaired and masked, one at a time: the reason against a row, or None.

    Reasons: `too_short`, `too_long`, `few_letters`, the names of rules, `listed_words`, `other_language`, `duplicate`,
    `near_duplicate`. A row of several contents is judged as one text of them all. The judge remembers every row it let
    pass, so one judge over several sources finds repeats between them. Raises as `clean_sources`.
    """
    judges = _judges(spec)
    seen = KeySet()
    near = NearDuplicates() if spec.near_duplicates else None

    def reason_against(row: Row) -> str | None:
        given = Measured("\n".join(row_contents(row)))
        reason = next((reason for judge in judges if (reason := judge(given))), None)
        if reason is None and spec.deduplicate:
            reason = None if seen.add(normalised_hash(row_text(row))) else "duplicate"
        if reason is None and near is not None and near.seen(given.text):
            reason = "near_duplicate"
        return reason

    return reason_against


def letter_share(text: str) -> float:
    """Letters and spaces over all characters, 0..1; 0 for an empty text."""
    letters = sum(text.count(char) for char in set(text) if char.isalpha() or char.isspace())
    return letters / len(text) if text else 0.0


def _judges(spec: CleanSpec) -> list[Judge]:
    """The filters in their order, the cheapest first."""

    def lengths(given: Measured) -> str | None:
        if len(given.text) < spec.min_chars:
            return "too_short"
        if spec.max_chars is not None and len(given.text) > spec.max_chars:
            return "too_long"
        if spec.min_letter_share and letter_share(given.text) < spec.min_letter_share:
            return "few_letters"
        return None

    judges: list[Judge] = [lengths]
    rules = text_rules(spec.rules)
    judges.append(lambda given: next((name for name, broken in rules.items() if broken(given)), None))
    if spec.words:
        words = read_words(spec.words)
        judges.append(
            lambda given: "listed_words" if listed_share(given.text, words) > spec.max_words else None
        )
    if spec.languages:
        is_other = language_judge(spec.languages)
        judges.append(lambda given: "other_language" if is_other(given.text) else None)
    return judges


def _changes(spec: CleanSpec) -> list[Change]:
    """What is done to each content, in order."""
    changes: list[Change] = []
    if spec.repair:
        repair = repairer()

        def repaired(text: str, changed: Counter[str]) -> str:
            mended = repair(text)
            if mended != text:
                changed["repaired"] += 1
            return mended

        changes.append(repaired)
    if spec.mask:

        def masked(text: str, changed: Counter[str]) -> str:
            text, found = mask_pii(text, spec.mask)
            changed.update({f"masked_{kind}": count for kind, count in found.items()})
            return text

        changes.append(masked)
    return changes


def _changed(row: Row, changes: Sequence[Change], lines: Sequence[str], changed: Counter[str]) -> Row:
    for change in changes:
        row = with_contents(row, partial(change, changed=changed))
    return _without_lines(row, lines, changed) if lines else row


def _without_lines(row: Row, rules: Sequence[str], changed: Counter[str]) -> Row:
    """A plain document without the lines that break a rule; a line of a conversation is not a web page's."""
    if not isinstance(row, Document) or row.turns:
        return row
    text, cut = cut_lines(row.text, rules)
    changed.update(cut)
    return Document(row.origin, text)


def _spoiled(row: Row) -> str | None:
    """The reason against a row that its changes left without use."""
    if isinstance(row, Pair):
        return "answers_equal" if row.chosen == row.rejected else None
    return "no_lines_left" if isinstance(row, Document) and not (row.text or row.turns) else None
