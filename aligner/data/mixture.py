"""What is trained on, how often, and what is withheld. Every choice is a function of (seed, file, row)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aligner.data.keys import key_of, normalised_hash
from aligner.data.readers import SourceRows
from aligner.data.readers.files import plain_stem
from aligner.data.rows import Document, Example, Pair, Row, row_text, turns_text
from aligner.errors import DataError, Problem, nearest


def chance(row: Row, *, seed: int, purpose: str) -> int:
    """A row's random number, 64 bits: a function of seed, purpose, file name, line and text alone.

    The file's name counts, not its folder, so that a project moved to another place draws the same rows.
    """
    return key_of(f"{seed}|{purpose}|{_name(row.origin.path)}|{row.origin.line}|{row_text(row)}")


@cache
def _name(path: str) -> str:
    return Path(path).name


def group_of(row: Row) -> int:
    """Rows with one key go together, withheld or weighed: the pairs of one prompt, or equal rows."""
    return normalised_hash(turns_text(row.prompt) if isinstance(row, Pair) else row_text(row))


def draw_holdout(sources: Sequence[SourceRows], rows: int, *, seed: int) -> list[SourceRows]:
    """Take `rows` rows out of the sources, at random over all of them, never to be trained on.

    Pairs are drawn by prompt: the other pairs of a withheld prompt are not trained on either. Dropped from
    the sources as `held_out` (drawn) and `in_holdout` (equal to a drawn row, or of its prompt).
    Returns what was drawn, one `SourceRows` a source it came from. Raises `DataError` where rows are too few.
    """
    keys, texts, lots = array("Q"), array("Q"), array("Q")
    for row in _rows(sources):
        keys.append(group_of(row))
        if isinstance(row, Pair):
            texts.append(normalised_hash(row_text(row)))
        lots.append(chance(row, seed=seed, purpose="holdout"))
    groups = _Groups(keys)
    taken = np.zeros(len(keys), dtype=bool)
    held: list[int] = []
    for place in map(int, np.argsort(np.asarray(lots), kind="stable")):  # the luckiest first
        if len(held) == rows:
            break
        if not taken[place]:
            group = groups.of(place)
            held += _unlike(group.tolist(), texts)[: rows - len(held)]
            taken[group] = True
    if taken.all():
        what = f"{rows} rows cannot be held out of {len(groups)}"
        raise DataError(Problem("data.holdout.rows", what, "hold out fewer rows, or add sources"))
    return _moved(sources, held, taken)


def _moved(
    sources: Sequence[SourceRows], held: Sequence[int], in_group: NDArray[np.bool_]
) -> list[SourceRows]:
    """The held rows in this order, one `SourceRows` a source; they and the others of their groups are dropped there.

    Rows are numbered over all sources; `in_group` has an entry for each.
    """
    drawn: list[list[Row]] = [[] for _ in sources]
    wanted, start = set(held), 0
    found: dict[int, tuple[int, Row]] = {}
    for index, source in enumerate(sources):
        end = start + len(source.rows)
        places = [start + place for place in np.flatnonzero(in_group[start:end]).tolist()]
        found |= {place: (index, source.rows[place - start]) for place in places if place in wanted}
        source.judge(
            "held_out" if start + place in wanted else "in_holdout" if gone else None
            for place, gone in enumerate(in_group[start:end].tolist())
        )
        start = end
    for place in held:
        index, row = found[place]
        drawn[index].append(row)
    return [source.with_rows(rows) for source, rows in zip(sources, drawn, strict=True) if rows]


class _Groups:
    """Rows by their keys: those of one key are a group."""

    def __init__(self, keys: array[int]) -> None:
        self._keys = np.asarray(keys)
        self._rows = np.argsort(self._keys, kind="stable")
        self._sorted = self._keys[self._rows]

    def __len__(self) -> int:
        return len(np.unique(self._sorted))

    def of(self, row: int) -> NDArray[np.intp]:
        """Numbers of the rows that are in this row's group, in order."""
        start, end = (np.searchsorted(self._sorted, self._keys[row], side) for side in ("left", "right"))
        return self._rows[start:end]


def _unlike(members: list[int], texts: array[int]) -> list[int]:
    """The rows of a group, equal ones once; `texts` has a key of each row's, none where groups are of equal rows."""
    if not texts:
        return members[:1]
    return list({texts[row]: row for row in reversed(members)}.values())[::-1]


def _rows(sources: Sequence[SourceRows]) -> Iterator[Row]:
    return (row for source in sources for row in source.rows)


def drop_withheld(sources: Sequence[SourceRows], holdout: Sequence[SourceRows]) -> None:
    """Drop, as `in_holdout`, the training rows that a held-out source has too (whitespace and case aside).

    Pairs go by prompt, as in `draw_holdout`: no other pair or ranking of a held-out prompt is trained on.
    """
    withheld = {group_of(row) for row in _rows(holdout)}
    for source in sources if withheld else ():
        source.keep(lambda row: "in_holdout" if group_of(row) in withheld else None)


def withhold_families(sources: Sequence[SourceRows], families: Sequence[str]) -> list[SourceRows]:
    """Take all rows of these families out of the sources, dropped there as `held_out`.

    A row is of the family it says it is (of a pair: its `kind`) and of the one that its file is named after.
    Returns the rows, one `SourceRows` a source they came from. Raises `DataError` for families without rows.
    """
    known = {name for row in _rows(sources) for name in _families_of(row)}
    unknown = [
        Problem("data.holdout.families", f'no row is of family "{name}"', nearest(name, sorted(known)))
        for name in families
        if name not in known
    ]
    if unknown:
        raise DataError(unknown)
    wanted = set(families)
    held = [source.with_rows(row for row in source.rows if wanted & _families_of(row)) for source in sources]
    for source in sources:
        source.keep(lambda row: "held_out" if wanted & _families_of(row) else None)
    return [source for source in held if source.rows]


def drop_families(sources: Sequence[SourceRows], families: Sequence[str]) -> None:
    """Drop, as `in_holdout`, rows of withheld families that are not measured: plain documents beside conversations."""
    wanted = set(families)
    for source in sources:
        source.keep(lambda row: "in_holdout" if wanted & _families_of(row) else None)


def _families_of(row: Row) -> set[str]:
    said = row.kind if isinstance(row, Pair) else "" if isinstance(row, Document) else row.family
    return {plain_stem(Path(row.origin.path)), said} - {""}


def keep_measured(holdout: Sequence[SourceRows], rows: int, *, seed: int) -> None:
    """Drop, as `not_measured`, held-out rows above this number, at random over all; 0: none."""
    if not rows:
        return
    lots = array("Q", (chance(row, seed=seed, purpose="measured") for row in _rows(holdout)))
    kept, start = _lowest(lots, rows), 0
    for source in holdout:
        end = start + len(source.rows)
        source.judge(None if stays else "not_measured" for stays in kept[start:end].tolist())
        start = end


def file_of(row: Row) -> str:
    """What a cap or a rate of its own is for."""
    return str(row.task.path) if isinstance(row, Example) else row.origin.path


def cap_files(source: SourceRows, cap: int | None, *, seed: int) -> None:
    """Keep at most `cap` random rows of each file or task (FLAN, arXiv:2109.01652, 2.1); the others drop as `cap`."""
    if cap is None:
        return
    lots, files = array("Q"), array("I")
    numbers: dict[str, int] = {}
    for row in source.rows:
        lots.append(chance(row, seed=seed, purpose="cap"))
        files.append(numbers.setdefault(file_of(row), len(numbers)))
    kept = np.zeros(len(lots), dtype=bool)
    each = np.asarray(files)
    begins = np.cumsum(np.bincount(each, minlength=len(numbers)))[:-1]
    for of_file in np.split(np.argsort(each, kind="stable"), begins) if numbers else ():
        kept[of_file] = _lowest(np.asarray(lots)[of_file], cap)
    source.judge(None if stays else "cap" for stays in kept.tolist())


def weigh(source: SourceRows, weight: float, *, seed: int) -> list[int]:
    """Copies of each row per epoch: the whole part of `weight`, one more for a random share (its fraction).

    Rows that get no copy are dropped as `weight`; the copies of the rows that stay are given, at least 1 each.
    """
    whole, extra = int(weight), round((weight - int(weight)) * len(source.rows))
    if not extra and whole:
        return [whole] * len(source.rows)
    lots = array("Q", (chance(row, seed=seed, purpose="weight") for row in source.rows))
    lucky = _lowest(lots, extra)
    if not whole:
        source.judge(None if stays else "weight" for stays in lucky.tolist())
        return [1] * len(source.rows)
    copies: list[int] = (whole + lucky).tolist()
    return copies


def _lowest(lots: Sequence[int] | NDArray[np.uint64], count: int) -> NDArray[np.bool_]:
    """Which of the rows have one of the `count` lowest lots."""
    lowest = np.zeros(len(lots), dtype=bool)
    lowest[np.argsort(np.asarray(lots, dtype=np.uint64), kind="stable")[:count]] = True
    return lowest


def random_order(rows: Iterable[tuple[Row, int]], *, seed: int) -> NDArray[np.int64]:
    """The number of each row, as often as it has copies: (row, copies) each, in one random order over all of them."""
    lots, counts = array("Q"), array("I")
    for row, copies in rows:
        counts.append(copies)
        for copy in range(copies):
            lots.append(chance(row, seed=seed, purpose=f"order {copy}"))
    order = np.argsort(np.asarray(lots), kind="stable")
    return order if set(counts) <= {1} else np.repeat(np.arange(len(counts)), counts)[order]
