"""What commands answer: the end of a run, its results as tables, the plan of a recipe. Heavy imports wait."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from aligner.doctor import Section
    from aligner.pipeline import RunOutcome
    from aligner.recipe.plan import Plan
    from aligner.run.report_tables import Cell, ResultTable

FEW_ROWS = 20
NO_TERMINAL = 10_000  # columns of a file or pipe, where nothing is folded


def print_outcome(outcome: RunOutcome) -> None:
    """What a run came to, and where."""
    page = outcome.folder / "report.html"
    if outcome.status == "already_done":
        typer.echo(f"{outcome.folder} is finished already: nothing to do (--fresh runs it again)")
    else:
        _print_results(outcome.results, outcome.folder)
        typer.echo(f"done: {outcome.folder}")
    if page.exists():
        typer.echo(f"report: {page}")


def _print_results(results: Mapping[str, float], folder: Path) -> None:
    """The figures that are looked for first, a column a model; all, where they are few or none is of that kind."""
    from aligner.run.report_tables import result_tables, start_and_end

    started, left = start_and_end(results)
    every = result_tables(left, "suites")
    first = result_tables(left, "first") if sum(len(one.rows) for one in every) > FEW_ROWS else []
    tables = [*started, *(first or every)]
    for columns, metrics in groupby(tables, key=lambda found: found.columns):
        _print_table(columns, list(metrics))
    others = [*(result_tables(left, "rest") if first else []), *result_tables(left, "families")]
    if others:
        more = sum(len(metric.rows) for metric in others)
        typer.echo(f"{more} more in {folder / 'results.json'} and the report")


def _print_table(columns: Sequence[str], metrics: Sequence[ResultTable]) -> None:
    """As wide as the terminal allows: intervals stand below their numbers where there is no room beside them."""
    from rich.markup import escape
    from rich.measure import Measurement
    from rich.table import Column, Table

    console = _console()
    endless = console.options.update(
        max_width=10_000
    )  # else a measure is never more than the terminal's width
    for beside in (" ", "\n"):
        table = Table(Column("", no_wrap=True), *columns, box=None)
        for metric in metrics:
            for row in metric.rows:
                name = f"{metric.title}, {row.name}".removesuffix(", all")
                table.add_row(escape(name), *(_marked(cell, beside) for cell in row.cells))
        if Measurement.get(console, endless, table).maximum <= console.width:
            break
    console.print(table)


def _console() -> Console:
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=NO_TERMINAL)


def _marked(cell: Cell, beside: str) -> str:
    text = f"{cell.text}{beside}({cell.interval})" if cell.interval else cell.text
    return f"[bold]{text}[/]" if cell.best else text


def print_plan(plan: Plan) -> None:
    """What a recipe would do, stage by stage."""
    from rich.markup import escape
    from rich.table import Table

    for stage in plan.stages:
        table = Table("", "", "", title=escape(stage.name), title_justify="left", show_header=False, box=None)
        for row in stage.rows:
            table.add_row(escape(row.name), escape(row.value), escape(row.why), style=None)
        _console().print(table)
        for sources in stage.tables:
            typer.echo("\n".join(["", *sources.lines()]))


def print_health(sections: Sequence[Section]) -> bool:
    """What the machine has, in tables; whether there is no problem in it."""
    from rich.markup import escape
    from rich.table import Table

    marks = {"ok": "", "note": "[yellow]note[/]", "problem": "[bold red]problem[/]"}
    for section in sections:
        table = Table("", "", "", "", title=section.title, title_justify="left", show_header=False, box=None)
        for found in section.findings:
            table.add_row(escape(found.name), escape(found.value), escape(found.why), marks[found.state])
        _console().print(table)
    problems = sum(found.state == "problem" for section in sections for found in section.findings)
    typer.echo(f"{problems} to mend" if problems else "nothing stands in the way")
    return not problems
