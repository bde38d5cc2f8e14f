"""From sources to rows of any kind: read, cleaned, held out, decontaminated, mixed, each of them accounted for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from aligner.data.clean import clean_sources, cleaning_files
from aligner.data.contamination import decontaminate
from aligner.data.instances import Epochs, Renderer, later_epochs, one_epoch
from aligner.data.mix import Mix, in_random_order, make, mix_of, report_made
from aligner.data.mixture import (
    cap_files,
    draw_holdout,
    drop_withheld,
    keep_measured,
    weigh,
    withhold_families,
)
from aligner.data.readers import SourceRows, read_source
from aligner.data.readers.kinds import Kind
from aligner.data.refusals import check_not_empty
from aligner.data.report import DataReport, RowCost, report_source
from aligner.data.rows import Document, Row
from aligner.recipe.clean import CleanSpec
from aligner.recipe.data import DecontaminateSpec, HoldoutSpec, SourceSpec
from aligner.recipe.mixture import MixtureSpec

T = TypeVar("T")
OfAll = Callable[[Sequence[SourceRows]], None]
KindOf = Callable[[SourceSpec], Kind]


@dataclass(frozen=True)
class Built(Generic[T]):
    """Values of the used rows, and the accounts; `answers`: costs of all rows but plain documents, copies aside."""

    train: list[T]
    curriculum: list[T]
    holdout: list[T]
    report: DataReport
    answers: list[RowCost]
    mix: Mix


@dataclass(frozen=True)
class Asked:
    """What a recipe's data section says of rows of any kind."""

    train: Sequence[SourceSpec]
    holdout: HoldoutSpec
    clean: CleanSpec | None = None
    decontaminate: DecontaminateSpec | None = None
    mixture: MixtureSpec | None = None
    curriculum: Sequence[SourceSpec] = ()


@dataclass(frozen=True)
class Step(Generic[T]):
    """How rows of one kind are judged and turned to values, each to one or more.

    Of all sources of a part together: `settle` judges what was read, `share` weighs what is left. `plain`: sources
    of plain text are trained on as documents, whatever the kind; none of their rows are held out.
    """

    kind: Kind
    reason_against: Callable[[Row], str | None]
    convert: Callable[[list[Row]], list[list[T]]]
    cost: Callable[[T], RowCost]
    settle: OfAll = lambda sources: None
    share: OfAll = lambda sources: None
    plain: bool = False

    def singles(self, rows: list[Row]) -> list[tuple[T, RowCost]]:
        """Rows that become one value each, with what it costs."""
        return [(value, self.cost(value)) for (value,) in self.convert(rows)]

    def kind_of(self, spec: SourceSpec) -> Kind:
        """The kind of rows that are read from a source to train on."""
        return "document" if self.plain and spec.plain else self.kind


def assemble(asked: Asked, step: Step[T], *, seed: int, epochs: Epochs = one_epoch) -> Built[T]:
    """All sources read and made into rows, in the order of things that `build` tells of; `DataError` as it says.

    epochs: how many are begun with so many rows; the rows of tasks are rendered for each.
    """
    renderer = Renderer(step.reason_against, seed=seed)
    sources = _read(asked.train, step, asked.clean, step.kind_of, renderer)
    early = _read(asked.curriculum, step, asked.clean, step.kind_of, renderer)
    holdout, held_copies = _withhold(asked, sources, early, step, renderer, seed)
    renderer.withhold(holdout, sources)
    against = decontaminate([*sources, *early], holdout, asked.decontaminate)
    if asked.holdout.families:  # all of them are withheld, so many are measured
        keep_measured(holdout, asked.holdout.rows, seed=seed)
        held_copies = [[1] * len(source.rows) for source in holdout]
    copies = [_mix(source, spec, seed) for source, spec in zip(sources, asked.train, strict=True)]
    early_copies = [_mix(source, spec, seed) for source, spec in zip(early, asked.curriculum, strict=True)]
    check_not_empty(sources, "train")
    check_not_empty(early, "curriculum")
    check_not_empty(holdout, "holdout")
    step.share(sources)
    renderer.show_solved(sources)
    made = make(sources, copies, step.convert, step.cost, renderer.rows)
    early_made = make(early, early_copies, step.convert, step.cost, renderer.rows)
    held_made = make(holdout, held_copies, step.convert, step.cost, partial(renderer.rows, held=True))
    train = in_random_order(made, seed=seed)
    mix = mix_of(train, asked.train, asked.mixture, seed=seed)
    every, mix = later_epochs(train, mix, sources, renderer, step.singles, epochs)
    renderer.trials.check()
    per_epoch = [mix.draws.rows_of(i) if mix.draws else None for i in range(len(sources))]
    return Built(
        train=[entry.value for entry in every],
        curriculum=[entry.value for entry in in_random_order(early_made, seed=seed)],
        holdout=[entry.value for part in held_made for entry in part for _ in range(entry.copies)],
        report=DataReport(
            [report_made(*entry) for entry in zip(sources, made, per_epoch, strict=True)],
            [report_made(*entry) for entry in zip(holdout, held_made, strict=True)],
            [report_made(*entry) for entry in zip(early, early_made, strict=True)],
            cleaning_files(asked.clean) if asked.clean else [],
            [report_source(source, [], []) for source in against],
        ),
        answers=[
            entry.cost
            for part in (*made, every[len(train) :], *early_made, *held_made)
            for entry in part
            if not isinstance(entry.row, Document)
        ],
        mix=mix,
    )


def _withhold(
    asked: Asked,
    sources: list[SourceRows],
    early: list[SourceRows],
    step: Step[T],
    renderer: Renderer,
    seed: int,
) -> tuple[list[SourceRows], list[list[int]]]:
    """The held-out rows, which are no longer among the others, and how often each counts."""
    held = asked.holdout
    measured = [s for s, spec in zip(sources, asked.train, strict=True) if step.kind_of(spec) == step.kind]
    if held.families:
        holdout = withhold_families([*measured, *early], held.families)
        drop_withheld([*sources, *early], holdout)
    elif held.rows:
        holdout = draw_holdout(measured, held.rows, seed=seed)
        drop_withheld(early, holdout)
    else:
        holdout = _read(held.sources, step, asked.clean, lambda spec: step.kind, renderer)
        copies = [_mix(source, spec, seed) for source, spec in zip(holdout, held.sources, strict=True)]
        drop_withheld([*sources, *early], holdout)
        return holdout, copies
    return holdout, [[1] * len(source.rows) for source in holdout]


def _read(
    specs: Sequence[SourceSpec],
    step: Step[T],
    clean: CleanSpec | None,
    kind_of: KindOf,
    renderer: Renderer,
) -> list[SourceRows]:
    sources = [read_source(spec, kind_of(spec)) for spec in specs]
    if clean is not None:
        clean_sources(sources, clean)
    for source in sources:
        source.keep(step.reason_against)
        source.keep(renderer.reason_against)
    step.settle(sources)
    return sources


def _mix(source: SourceRows, spec: SourceSpec, seed: int) -> list[int]:
    cap_files(source, spec.cap, seed=seed)
    return weigh(source, spec.weight, seed=seed)
