"""From sources to rows of any kind: read, cleaned, held out, decontaminated, mixed, each of them accounted for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import numpy as np

from aligner.data.clean import clean_sources, cleaning_files
from aligner.data.collector import only_new_objects
from aligner.data.contamination import decontaminate
from aligner.data.costs import Costs, RowCost
from aligner.data.instances import Epochs, Renderer, later_epochs, one_epoch
from aligner.data.mix import (
    ListedValues,
    Made,
    Mix,
    Values,
    in_file_order,
    in_random_order,
    make,
    mix_of,
    mixed,
    report_made,
)
from aligner.data.mixture import (
    cap_files,
    draw_holdout,
    drop_families,
    drop_withheld,
    keep_measured,
    weigh,
    withhold_families,
)
from aligner.data.readers import SourceRows, read_source
from aligner.data.readers.kinds import Kind
from aligner.data.refusals import check_not_empty
from aligner.data.report import DataReport, SourceReport, report_source
from aligner.data.rows import Row
from aligner.recipe.clean import CleanSpec
from aligner.recipe.data import DecontaminateSpec, HoldoutSpec, SourceSpec
from aligner.recipe.mixture import MixtureSpec

T = TypeVar("T")
OfAll = Callable[[Sequence[SourceRows]], None]
KindOf = Callable[[SourceSpec], Kind]


@dataclass(frozen=True)
class Built(Generic[T]):
    """Values of the used rows, always or early alone (`curriculum`), of the held-out ones, and the accounts.

    `train`: the rows of the first epoch and, where there are tasks, their rows as later epochs have them; `mix` knows.
    """

    train: Sequence[T]
    curriculum: Sequence[T]
    holdout: Sequence[T]
    report: DataReport
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

    Of all sources of a part together: `settle` judges what was read, `share` weighs what is left. `check` refuses the
    costs of all rows but plain documents, copies aside. `plain`: sources of plain text are trained on as documents,
    whatever the kind; none of their rows are held out.
    """

    kind: Kind
    reason_against: Callable[[Row], str | None]
    convert: Callable[[list[Row]], list[list[T]]]
    cost: Callable[[T], RowCost]
    values: Callable[[], Values[T]] = ListedValues
    settle: OfAll = lambda sources: None
    share: OfAll = lambda sources: None
    check: Callable[[Costs], None] = lambda costs: None
    plain: bool = False

    def kind_of(self, spec: SourceSpec) -> Kind:
        """The kind of rows that are read from a source to train on."""
        return "document" if self.plain and spec.plain else self.kind


@only_new_objects()
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
    values = step.values()
    to_values = partial(make, convert=step.convert, cost=step.cost, values=values)
    made = to_values(sources, copies, write=renderer.written)
    early_made = to_values(early, early_copies, write=renderer.written)
    held_made = to_values(holdout, held_copies, write=partial(renderer.written, held=True))
    order = in_random_order(sources, made, seed=seed)
    mix = mix_of(order, made, values.costs)
    if asked.mixture:
        mix = mixed(mix, order, sources, made, asked.train, asked.mixture, seed=seed)
    every, mix = later_epochs(order, mix, sources, renderer, step.convert, step.cost, values, epochs)
    renderer.trials.check()
    plain = [part for part, spec in zip(made, asked.train, strict=True) if step.plain and spec.plain]
    step.check(_without(plain, values.costs))
    return Built(
        train=values.picked(every),
        curriculum=values.picked(in_random_order(early, early_made, seed=seed)),
        holdout=values.picked(in_file_order(held_made)),
        report=DataReport(
            _reports(sources, made, values.costs, mix),
            _reports(holdout, held_made, values.costs),
            _reports(early, early_made, values.costs),
            cleaning_files(asked.clean) if asked.clean else [],
            [report_source(source) for source in against],
        ),
        mix=mix,
    )


def _reports(
    sources: Sequence[SourceRows], made: Sequence[Made], costs: Costs, mix: Mix | None = None
) -> list[SourceReport]:
    draws = mix.draws if mix else None
    return [
        report_made(source, part, costs, draws.rows_of(number) if draws else None)
        for number, (source, part) in enumerate(zip(sources, made, strict=True))
    ]


def _without(made: Sequence[Made], costs: Costs) -> Costs:
    """The costs of all values but these."""
    if not made:
        return costs
    others = np.ones(len(costs), dtype=bool)
    for part in made:
        others[part.values] = False
    return costs.picked(np.flatnonzero(others))


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
    given = [(s, step.kind_of(spec) == step.kind) for s, spec in zip(sources, asked.train, strict=True)]
    measured = [source for source, alike in given if alike]
    if held.families:
        holdout = withhold_families([*measured, *early], held.families)
        drop_families([source for source, alike in given if not alike], held.families)
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
        if source.of_tasks:
            source.keep(renderer.reason_against)
    step.settle(sources)
    return sources


def _mix(source: SourceRows, spec: SourceSpec, seed: int) -> list[int]:
    cap_files(source, spec.cap, seed=seed)
    return weigh(source, spec.weight, seed=seed)
