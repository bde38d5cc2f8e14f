"""Rows of evaluations among those to be trained on (GPT-3, arXiv:2005.14165, appendix C; survey arXiv:2303.18223, 4.1).

Words are compared, case and punctuation aside; what a system turn says is the same for many and not compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from aligner.data.cleaning.measured import spoken_words
from aligner.data.cleaning.near import Hashes, NearDuplicates, hashed_runs, mixed
from aligner.data.readers import SourceRows, read_source
from aligner.data.readers.tasks.task import written_by
from aligner.data.rows import Document, Example, Pair, Row, row_turns
from aligner.errors import DataError, Problem
from aligner.recipe.data import DecontaminateSpec

LOW_BITS = np.uint64(2**24 - 1)  # of a hash: a table of 16 MiB says which occur
BATCH_WORDS = 1 << 20  # hashed at once: some 50 MiB
SHOWN = 5  # contaminated rows that an error names
Places = NDArray[np.intp]


def decontaminate(
    sources: Sequence[SourceRows], holdout: Sequence[SourceRows], spec: DecontaminateSpec | None
) -> list[SourceRows]:
    """Read the evaluations that `spec` names, if any, and drop their rows from the sources; they are given back."""
    if spec is None:
        return []
    against = [read_source(named, None) for named in spec.against]
    drop_contaminated(sources, [*against, *(holdout if spec.holdout else ())], spec)
    return against


def drop_contaminated(
    sources: Sequence[SourceRows], evaluations: Sequence[SourceRows], spec: DecontaminateSpec
) -> None:
    """Drop, as `contaminated`, the rows that ask what an evaluation row asks or share `spec.ngram` words with one.

    With `near_duplicates`, as `near_contaminated` those that are nearly one. `ignore_above` spares rows whose shared
    words stand in more training rows than that; they are counted in `noted` as `shared_phrase`.
    Raises `DataError` with the first rows where `spec.overlap` is "error".
    """
    against = [row for source in evaluations for row in source.rows]
    leaks, phrases = _leaks(sources, against, spec)
    near = NearDuplicates()
    for row in against if spec.near_duplicates else ():
        for text in _texts(row):
            near.seen(text)

    def reason_against(place: int, row: Row) -> str | None:
        if place in leaks:
            return "contaminated"
        if spec.near_duplicates and any(near.near(text) for text in _texts(row)):
            return "near_contaminated"
        return None

    found: list[tuple[Row, Row | None]] = []
    first, read = 0, sum(len(source.rows) for source in sources)
    for source in sources:
        places = range(first, first + len(source.rows))
        first = places.stop
        source.noted += Counter({"shared_phrase": sum(place in phrases for place in places)})
        if spec.overlap == "drop":
            source.judge(map(reason_against, places, source.rows))
        else:
            both = zip(places, source.rows, strict=True)
            found += [(row, leaks.get(place)) for place, row in both if reason_against(place, row)]
    if found:
        raise DataError(_problems(found, read))


def _problems(found: Sequence[tuple[Row, Row | None]], rows: int) -> list[Problem]:
    """The first contaminated rows, each with the evaluation row where one is known, and how many there are."""
    first = [
        Problem(str(row.origin), f"has something of {leak.origin if leak else 'an evaluation'}")
        for row, leak in found[:SHOWN]
    ]
    what = f"{len(found)} of {rows} rows are contaminated by evaluations"
    return [
        *first,
        Problem("data.decontaminate", what, "take them out, or leave them out with overlap: drop"),
    ]


def _leaks(
    sources: Sequence[SourceRows], against: Sequence[Row], spec: DecontaminateSpec
) -> tuple[dict[int, Row], set[int]]:
    """By a row's place over all sources: the evaluation row that it has something of; and who shares a phrase alone."""
    asked = {question: row for row in reversed(against) for question in _questions(row)}
    leaks = {
        place: asked[question]
        for place, row in enumerate(_rows(sources))
        for question in _questions(row)
        if question in asked
    }
    if spec.ngram is None:
        return leaks, set()
    grams = EvaluationGrams(against, spec.ngram)
    places, found = grams.found_in(_rows(sources))
    hashes, inverse, counts = np.unique(found, return_inverse=True, return_counts=True)
    rare = counts[inverse] <= (spec.ignore_above or np.inf)
    for place, gram in zip(places[rare].tolist(), hashes[inverse][rare], strict=True):
        leaks.setdefault(place, against[grams.owner(gram)])
    return leaks, set(places[~rare].tolist()) - leaks.keys()


def _rows(sources: Sequence[SourceRows]) -> Iterator[Row]:
    return (row for source in sources for row in source.rows)


class EvaluationGrams:
    """Every run of `width` words that evaluation rows have, as 64-bit hashes: 16 bytes each, and each word once."""

    def __init__(self, rows: Sequence[Row], width: int) -> None:
        self.width = width
        words = {word for row in rows for text in _texts(row) for word in spoken_words(text)}
        self._ids = {word: number for number, word in enumerate(sorted(words), start=1)}
        self._word_hashes: Hashes = mixed(np.arange(len(words) + 1, dtype=np.uint64))
        found = list(self._runs(rows))
        hashes = np.concatenate([batch for _, batch in found] or [np.zeros(0, np.uint64)])
        owners = np.concatenate([batch for batch, _ in found] or [np.zeros(0, np.intp)])
        self._hashes, first = np.unique(hashes, return_index=True)
        self._owners: Places = owners[first]
        self._low_bits = np.zeros(int(LOW_BITS) + 1, dtype=bool)
        self._low_bits[self._hashes & LOW_BITS] = True

    def owner(self, gram: np.uint64) -> int:
        """The place of the first row that has a run with this hash."""
        return int(self._owners[np.searchsorted(self._hashes, gram)])

    def found_in(self, rows: Iterable[Row]) -> tuple[Places, Hashes]:
        """Places of rows that have runs in common with the evaluation, and the runs' hashes, each pair once."""
        pairs: set[tuple[int, int]] = set()
        for places, hashes in self._runs(rows) if len(self._hashes) else ():
            likely = self._low_bits[hashes & LOW_BITS]  # a look-up, where the search below is twenty
            places, hashes = places[likely], hashes[likely]
            nearest = np.searchsorted(self._hashes, hashes).clip(max=len(self._hashes) - 1)
            hit = self._hashes[nearest] == hashes
            pairs.update(zip(places[hit].tolist(), hashes[hit].tolist(), strict=True))
        ordered = sorted(pairs)
        return (
            np.array([place for place, _ in ordered], dtype=np.intp),
            np.array([gram for _, gram in ordered], dtype=np.uint64),
        )

    def _runs(self, rows: Iterable[Row]) -> Iterator[tuple[Places, Hashes]]:
        """(place of the row, hash) of every run of known words, in batches."""
        for places, ids in self._batches(rows):
            unknown = np.concatenate([[0], np.cumsum(ids == 0)])
            starts = np.flatnonzero(unknown[self.width :] == unknown[: -self.width])
            yield places[starts], hashed_runs(self._word_hashes[ids], starts, self.width)

    def _batches(self, rows: Iterable[Row]) -> Iterator[tuple[Places, Places]]:
        """(place of the row, number of the word) for every word; 0 for unknown ones, and between two texts."""
        places: list[int] = []
        ids: list[int] = []
        for place, text in ((place, text) for place, row in enumerate(rows) for text in _texts(row)):
            before = len(ids)
            ids.extend(map(self._ids.get, spoken_words(text), repeat(0)))
            ids.append(0)
            places += [place] * (len(ids) - before)
            if len(ids) > BATCH_WORDS:
                yield np.array(places), np.array(ids)
                places, ids = [], []
        if len(ids) >= self.width:
            yield np.array(places), np.array(ids)


def _texts(row: Row) -> list[str]:
    """What a row says, system turns aside: one text, of a pair one with either answer, of a task's one a template."""
    if isinstance(row, Example):
        return [text for each in written_by(row, row.task.all_templates) for text in _texts(each)]
    if isinstance(row, Document) and not row.turns:
        return [row.text]
    said = "\n".join(text for turn in row_turns(row) if turn.role != "system" for text in turn.texts)
    return [f"{said}\n{row.chosen}", f"{said}\n{row.rejected}"] if isinstance(row, Pair) else [said]


def _questions(row: Row) -> list[bytes]:
    """What two rows share where their users say the same words; of plain texts, all of the text. None of no words.

    A row of a task asks what each of its templates asks, but for those that turn the task around: "Write a good
    review." is asked of every row alike.
    """
    asking: Sequence[Row] = [row]
    if isinstance(row, Example):
        asking = written_by(row, [each for each in row.task.all_templates if not each.written.inverts])
    return [question for each in asking if (question := _question(each))]


def _question(row: Row) -> bytes:
    if isinstance(row, Document) and not row.turns:
        words = spoken_words(row.text)
    else:
        words = spoken_words("\n".join(turn.content for turn in row_turns(row) if turn.role == "user"))
    return blake2b(" ".join(words).encode(), digest_size=16).digest() if words else b""
