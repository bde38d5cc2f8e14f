"""The training rows of all sources together: whose each is, what it costs, and which of them an epoch reads."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Generic, Protocol, TypeVar

import numpy as np

from aligner.data.costs import Costs, Places, RowCost
from aligner.data.mixture import chance, file_of, random_order
from aligner.data.readers import SourceRows
from aligner.data.report import SourceReport, report_source
from aligner.data.rows import Row
from aligner.data.shares import Draws, Part, draws_of, each_of
from aligner.recipe.data import SourceSpec
from aligner.recipe.mixture import MixtureSpec

BATCH_ROWS = 2048  # converted at once

T = TypeVar("T")


class Values(Protocol[T]):
    """Where what rows are made into is put, one behind the other, with the costs of each."""

    costs: Costs

    def append(self, value: T, cost: RowCost, /) -> None:
        """Put a value behind the others."""

    def picked(self, places: Places, /) -> Sequence[T]:
        """The values at these places, in this order."""


class ListedValues(Generic[T]):
    """Values in memory."""

    def __init__(self) -> None:
        self.costs, self._values = Costs(), list[T]()

    def append(self, value: T, cost: RowCost) -> None:
        """Put a value behind the others."""
        self._values.append(value)
        self.costs.append(cost)

    def picked(self, places: Places) -> list[T]:
        """The values at these places, in this order."""
        return [self._values[place] for place in places.tolist()]


@dataclass(frozen=True)
class Made:
    """The values that a source's rows were made into: those from `starts[i]` up to `starts[i + 1]` are row i's.

    `copies`: how often each row comes.
    """

    starts: Places
    copies: Places

    @property
    def values(self) -> Places:
        """The places of all values."""
        return np.arange(self.starts[0], self.starts[-1])

    @property
    def value_copies(self) -> Places:
        """How often each value comes."""
        return np.repeat(self.copies, np.diff(self.starts))


@dataclass(frozen=True)
class Mix:
    """Of each training row its source, its number there (copies of a row have the same), and its cost.

    Without `draws` an epoch reads every training row of the first once. `rendered`: of each later epoch, where its
    rendering of a task's row lies, which it reads instead of the first epoch's; after the last, the first comes again.
    These `renderings` are the last of the training rows.
    """

    sources: Sequence[int]
    numbers: Sequence[int]
    costs: Costs
    draws: Draws | None = None
    rendered: list[dict[int, int]] = field(default_factory=list)
    renderings: int = 0

    @property
    def rows_per_epoch(self) -> int:
        """Rows an epoch reads."""
        return self.draws.rows_per_epoch if self.draws else len(self._first)

    def epoch(self, number: int) -> Sequence[int]:
        """Numbers of the training rows that an epoch (from 0) reads, in no order to train in."""
        read = self.draws.epoch(number) if self.draws else self._first
        turn = number % (len(self.rendered) + 1)
        return [self.rendered[turn - 1].get(row, row) for row in read] if turn else read

    @property
    def _first(self) -> Sequence[int]:
        return range(len(self.sources) - self.renderings)


def make(
    sources: Sequence[SourceRows],
    copies: Sequence[Sequence[int]],
    convert: Callable[[list[Row]], list[list[T]]],
    cost: Callable[[T], RowCost],
    write: Callable[[SourceRows, Row], Row],
    values: Values[T],
) -> list[Made]:
    """The rows of each source, as they are written, converted; a row may become several values, one after the other."""
    made = []
    for source, times in zip(sources, copies, strict=True):
        starts = array("q", [len(values.costs)])
        for batch in _batches(source.rows):
            for given in convert([write(source, row) for row in batch]):
                for value in given:
                    values.append(value, cost(value))
                starts.append(len(values.costs))
        made.append(Made(np.asarray(starts), np.array(times, dtype=np.int64)))
    return made


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    left = iter(rows)
    while batch := list(islice(left, BATCH_ROWS)):
        yield batch


def in_random_order(sources: Sequence[SourceRows], made: Sequence[Made], *, seed: int) -> Places:
    """The places of all values, each as often as it has copies."""
    if not made:
        return np.zeros(0, np.int64)
    rows = (row for source in sources for row in source.rows)
    copies = np.concatenate([part.copies for part in made])
    order = random_order(zip(rows, copies.tolist(), strict=True), seed=seed)
    firsts = np.concatenate([part.starts[:-1] for part in made])
    counts = np.concatenate([np.diff(part.starts) for part in made])
    if np.all(counts == 1):
        return firsts[order]
    ends = np.cumsum(counts[order])
    places = np.arange(ends[-1] if len(ends) else 0)
    return places + np.repeat(firsts[order] - (ends - counts[order]), counts[order])


def in_file_order(made: Sequence[Made]) -> Places:
    """The places of all values in the order of their rows, each as often as it has copies."""
    parts = [np.repeat(part.values, part.value_copies) for part in made]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def mix_of(order: Places, made: Sequence[Made], costs: Costs) -> Mix:
    """The mix of the values at these places, all of which an epoch reads."""
    firsts = np.array([part.starts[0] for part in made], dtype=np.int64)
    owners = np.searchsorted(firsts, order, side="right") - 1
    numbers = order - firsts[owners] if len(order) else order
    owned = array("i", owners.astype(np.intc).tobytes())
    return Mix(owned, array("q", numbers.tobytes()), costs.picked(order))


def mixed(
    mix: Mix,
    order: Places,
    sources: Sequence[SourceRows],
    made: Sequence[Made],
    specs: Sequence[SourceSpec],
    mixture: MixtureSpec,
    *,
    seed: int,
) -> Mix:
    """The same mix with the draws of a mixture. Raises `DataError` where it cannot be made of these rows."""
    grouped: dict[tuple[int, str], list[int]] = defaultdict(list)
    keys, luck = list[tuple[int, str]](), array("Q")  # of each value
    for number, (source, part) in enumerate(zip(sources, made, strict=True)):
        by_file = each_of(specs[number], mixture) == "file"
        for row, count in zip(source.rows, np.diff(part.starts).tolist(), strict=True):
            keys += [(number, file_of(row) if by_file else "")] * count
            luck.extend([chance(row, seed=seed, purpose="mixture")] * count)
    for place, value in enumerate(order.tolist()):
        grouped[keys[value]].append(place)
    tokens = mix.costs.tokens
    parts = [
        Part(
            name=path or f"data.train.{number}",
            source=number,
            rows=rows,
            luck=[luck[order[place]] for place in rows],
            tokens=int(tokens[rows].sum()) / len(rows),
        )
        for (number, path), rows in sorted(grouped.items())
    ]
    return replace(mix, draws=draws_of(parts, specs, mixture))


def report_made(
    source: SourceRows, made: Made, costs: Costs, rows_per_epoch: int | None = None
) -> SourceReport:
    """The accounts of a source; of `rows_per_epoch` that a mixture reads, the tokens are what they are on average."""
    report = report_source(source, costs.picked(made.values), made.value_copies)
    if rows_per_epoch is None:
        return report
    times = rows_per_epoch / max(len(made.values), 1)
    return replace(
        report,
        rows_per_epoch=rows_per_epoch,
        tokens=round(report.tokens * times),
        supervised_tokens=round(report.supervised_tokens * times),
    )
