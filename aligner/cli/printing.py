"""What commands answer: the end of a run, its results as tables, the plan of a recipe. Heavy imports wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from aligner.doctor import Section
    from aligner.pipeline import RunOutcome
    from aligner.recipe.plan import Plan

MAX_RESULT_ROWS = 20


def print_outcome(outcome: RunOutcome) -> None:
    """What a run came to, and where."""
    page = outcome.folder / "report.html"
    if outcome.status == "already_done":
        typer.echo(f"{outcome.folder} is finished already: nothing to do (--fresh runs it again)")
    else:
        _print_results(outcome.results)
        typer.echo(f"done: {outcome.folder}")
    if page.exists():
        typer.echo(f"report: {page}")


def _print_results(results: Mapping[str, float]) -> None:
    """The results of whole suites, a column a model, what matters most first; the rest is in results.json."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from aligner.run.report_tables import result_tables

    for columns, metrics in groupby(result_tables(results, families=False), key=lambda found: found.columns):
        rows = [
            (f"{metric.title}, {row.name}".removesuffix(", all"), row)
            for metric in metrics
            for row in metric.rows
        ]
        table = Table("", *columns, box=None)
        for name, row in rows[:MAX_RESULT_ROWS]:
            table.add_row(
                escape(name), *(f"[bold]{cell.text}[/]" if cell.best else cell.text for cell in row.cells)
            )
        if len(rows) > MAX_RESULT_ROWS:
            table.add_row(f"... {len(rows) - MAX_RESULT_ROWS} more in results.json")
        Console().print(table)


def print_plan(plan: Plan) -> None:
    """What a recipe would do, stage by stage."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    for stage in plan.stages:
        table = Table("", "", "", title=escape(stage.name), title_justify="left", show_header=False, box=None)
        for row in stage.rows:
            table.add_row(escape(row.name), escape(row.value), escape(row.why), style=None)
        Console().print(table)
        for sources in stage.tables:
            typer.echo("\n".join(["", *sources.lines()]))


def print_health(sections: Sequence[Section]) -> bool:
    """What the machine has, in tables; whether there is no problem in it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    marks = {"ok": "", "note": "[yellow]note[/]", "problem": "[bold red]problem[/]"}
    for section in sections:
        table = Table("", "", "", "", title=section.title, title_justify="left", show_header=False, box=None)
        for found in section.findings:
            table.add_row(escape(found.name), escape(found.value), escape(found.why), marks[found.state])
        Console().print(table)
    problems = sum(found.state == "problem" for section in sections for found in section.findings)
    typer.echo(f"{problems} to mend" if problems else "nothing stands in the way")
    return not problems
