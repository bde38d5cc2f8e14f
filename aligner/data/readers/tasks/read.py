"""The rows of a task file, those dropped that no template fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from aligner.data.readers.formats import read_records
from aligner.data.readers.records import Record, fault
from aligner.data.readers.tasks.file import read_task_file
from aligner.data.readers.tasks.task import check_fields, gravest, load_task
from aligner.data.readers.tasks.template import TaskTemplate, Trials, Unfit
from aligner.data.rows import Dropped, Example, Row
from aligner.errors import DataError, Problem
from aligner.recipe.data import SourceSpec


def read_examples(path: Path, spec: SourceSpec) -> Iterator[Example | Dropped | DataError]:
    """The rows of a task, in order, of which only the fields that templates read are kept; of a bad row its error.

    A row that no template fits is dropped: `empty_input`, `empty_target` or, where one failed on it, `template_failed`.
    Each row tries its templates from another one on, so all of them are tried. `DataError` for a wrong task file, a
    field that no row has, and a template that fails too often (see `Trials`).
    """
    file = read_task_file(path)
    task = load_task(file, spec)
    records: list[Record] = []
    for record in (found for rows in file.row_files for found in read_records(rows)):
        if isinstance(record, DataError):
            yield record
        else:
            records.append(record)
    check_fields(task, file, records)
    templates = task.all_templates
    trials = Trials()
    for number, record in enumerate(records):
        example = task.example(record, file.spec.integers)
        start = number % len(templates)
        reason = _reason_against(example, (*templates[start:], *templates[:start]), trials)
        yield Dropped(record.origin, reason) if reason else example
    trials.check()


def check_rationales(spec: SourceSpec, rows: Sequence[Row]) -> None:
    """`DataError` where a source asks for reasons, and none of its tasks has templates that give any."""
    tasks = [row.task for row in rows if isinstance(row, Example)]
    if spec.rationale and tasks and not any(task.rationales for task in tasks):
        what = f"rationale = {spec.rationale:g}, and no template is marked rationale: true"
        raise fault(str(tasks[0].path), what, "mark those that give reasons, or leave rationale out")


def check_tasks(paths: Sequence[Path], spec: SourceSpec) -> None:
    """`DataError` with what is wrong with these task files and their templates, all of them together."""
    problems: list[Problem] = []
    for path in paths:
        try:
            load_task(read_task_file(path), spec)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)


def files_of_task(path: Path) -> list[Path]:
    """The files that a task file names: PromptSource's templates, rows."""
    return read_task_file(path).files


def _reason_against(example: Example, templates: Sequence[TaskTemplate], trials: Trials) -> str | None:
    reasons = []
    for template in templates:
        found = template.render(example.fields, example.origin, lambda draw: draw)
        trials.note(template, example.origin, found)
        if not isinstance(found, Unfit):
            return None
        reasons.append(found.reason)
    return gravest(reasons)
