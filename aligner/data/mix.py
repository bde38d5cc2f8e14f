"""The training rows of all sources together: whose each is, what it costs, and which of them an epoch reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Generic, TypeVar

from aligner.data.mixture import chance, file_of, shuffled
from aligner.data.readers import SourceRows
from aligner.data.report import RowCost, SourceReport, report_source
from aligner.data.rows import Row
from aligner.data.shares import Draws, Part, draws_of, each_of
from aligner.recipe.data import SourceSpec
from aligner.recipe.mixture import MixtureSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Made(Generic[T]):
    """What a row was made into: its source's number, its own number there, how often it comes, what it costs."""

    source: int
    number: int
    row: Row
    value: T
    copies: int
    cost: RowCost


@dataclass(frozen=True)
class Mix:
    """Of each training row its source, its number there (copies of a row have the same), and its cost.

    Without `draws` an epoch reads every training row once. `places`: where each row lies in each epoch, where there are
    tasks, whose rows are rendered anew for each; after the last, the first comes again.
    """

    sources: list[int]
    numbers: list[int]
    costs: list[RowCost]
    draws: Draws | None = None
    places: list[list[int]] = field(default_factory=list)

    @property
    def rows_per_epoch(self) -> int:
        """Rows an epoch reads."""
        return self.draws.rows_per_epoch if self.draws else len(self._first)

    def epoch(self, number: int) -> Sequence[int]:
        """Numbers of the training rows that an epoch (from 0) reads, in no order to train in."""
        read = self.draws.epoch(number) if self.draws else range(len(self._first))
        return [self.places[number % len(self.places)][row] for row in read] if self.places else read

    @property
    def _first(self) -> Sequence[int]:
        return self.places[0] if self.places else self.sources

    def rendered(self, rows: Sequence[tuple[int, int, RowCost]], places: list[list[int]]) -> Mix:
        """The same mix of more rows, (source, number there, cost) each, that lie at `places`."""
        sources, numbers, costs = (list(given) for given in zip(*rows, strict=True))
        return Mix(sources, numbers, costs, self.draws, places)


def make(
    sources: Sequence[SourceRows],
    copies: Sequence[Sequence[int]],
    convert: Callable[[list[Row]], list[list[T]]],
    cost: Callable[[T], RowCost],
    write: Callable[[SourceRows], list[Row]],
) -> list[list[Made[T]]]:
    """The rows of each source, as they are written, converted; a row may become several values, one after the other."""
    made: list[list[Made[T]]] = []
    for place, (source, times) in enumerate(zip(sources, copies, strict=True)):
        rows = zip(source.rows, times, convert(write(source)), strict=True)
        values = [(row, count, value) for row, count, given in rows for value in given]
        made.append(
            [Made(place, i, row, value, count, cost(value)) for i, (row, count, value) in enumerate(values)]
        )
    return made


def in_random_order(made: Sequence[Sequence[Made[T]]], *, seed: int) -> list[Made[T]]:
    """All of it, each as often as it has copies."""
    entries = [entry for source in made for entry in source]
    return shuffled([entry.row for entry in entries], entries, [entry.copies for entry in entries], seed=seed)


def mix_of(
    entries: Sequence[Made[T]], specs: Sequence[SourceSpec], mixture: MixtureSpec | None, *, seed: int
) -> Mix:
    """The mix of these training rows. Raises `DataError` where the mixture cannot be made of them."""
    draws = draws_of(_parts(entries, specs, mixture, seed), specs, mixture) if mixture else None
    return Mix(
        [entry.source for entry in entries],
        [entry.number for entry in entries],
        [entry.cost for entry in entries],
        draws,
    )


def _parts(
    entries: Sequence[Made[T]], specs: Sequence[SourceSpec], mixture: MixtureSpec, seed: int
) -> list[Part]:
    grouped: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, entry in enumerate(entries):
        by_file = each_of(specs[entry.source], mixture) == "file"
        grouped[entry.source, file_of(entry.row) if by_file else ""].append(index)
    return [
        Part(
            name=path or f"data.train.{source}",
            source=source,
            rows=rows,
            luck=[chance(entries[i].row, seed=seed, purpose="mixture") for i in rows],
            tokens=fmean(entries[i].cost.tokens for i in rows),
        )
        for (source, path), rows in sorted(grouped.items())
    ]


def report_made(
    source: SourceRows, made: Sequence[Made[T]], rows_per_epoch: int | None = None
) -> SourceReport:
    """The accounts of a source; of `rows_per_epoch` that a mixture reads, the tokens are what they are on average."""
    report = report_source(source, [entry.cost for entry in made], [entry.copies for entry in made])
    if rows_per_epoch is None:
        return report
    times = rows_per_epoch / max(len(made), 1)
    return replace(
        report,
        rows_per_epoch=rows_per_epoch,
        tokens=round(report.tokens * times),
        supervised_tokens=round(report.supervised_tokens * times),
    )
