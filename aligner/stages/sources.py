"""What a training reads of each source: said and noted before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from aligner.data.build import Conversations, Pairs
from aligner.data.plan import plan_sources, plan_table
from aligner.run.folder import RunFolder
from aligner.run.progress import say


def tell_sources(run: RunFolder, data: Conversations | Pairs, order: Sequence[int]) -> None:
    """Say what will be read of each source when rows come in this order, and note it in the run's manifest."""
    plans = plan_sources(data.report, data.mix, order)
    for line in plan_table(plans).lines():
        say(line)
    run.note_sources([asdict(plan) for plan in plans])


def row_name(data: Conversations | Pairs, row: int) -> str:
    """A training row's place: its source, and its number, from 1, among the rows that are used of it.

    Where none was dropped that is its number in the file.
    """
    source = data.report.train[data.mix.sources[row]]
    place = f"{source.path} row {data.mix.numbers[row] + 1}"
    dropped = source.rows_read - source.rows_used
    return f"{place} of the {source.rows_used:,} used" if dropped else place
