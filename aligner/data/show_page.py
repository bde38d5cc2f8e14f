"""Rows as the model sees them, as one self-contained page of HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aligner.data.pieces import ShownRow, dropped_text, parts_of, visible
from aligner.data.report import DataReport, SourceReport
from aligner.recipe.plan import PlanRow, PlanTable

TEMPLATE = "show.html.j2"


@dataclass(frozen=True)
class Drops:
    """Why rows of a source were dropped: how many in all, and (reason, number, a few of them as (place, text))."""

    title: str
    reasons: list[tuple[str, int, list[tuple[str, str]]]]


@dataclass(frozen=True)
class StageView:
    """What a page says of one stage; `kind`: what it does, as its recipe calls it."""

    name: str
    kind: str
    rows: list[ShownRow]
    tables: list[PlanTable]
    templates: list[PlanRow]
    drops: list[Drops]


def render_page(title: str, stages: Sequence[StageView]) -> str:
    """The page; the template escapes every text in it, and control characters, which HTML has not, are shown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if isinstance(value, str) else value,
    )
    return environment.get_template(TEMPLATE).render(title=title, stages=stages)


def drops_of(report: DataReport, count: int) -> list[Drops]:
    """The sources that lost rows, and up to `count` rows of each reason."""
    return [_drops(part, source, count) for part, source in parts_of(report) if source.dropped]


def _drops(part: str, source: SourceReport, count: int) -> Drops:
    few = {reason: rows[:count] for reason, rows in source.samples.items()}
    reasons = [
        (reason, number, [(str(row.origin), dropped_text(row)) for row in few.get(reason, [])])
        for reason, number in source.dropped.items()
    ]
    total = sum(source.dropped.values())
    return Drops(f"{part} {source.path}: {total:,} of {source.rows_read:,} rows", reasons)
