"""The rows of a task file, those dropped that no template fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from aligner.data.readers.formats import read_records
from aligner.data.readers.records import Record, fault
from aligner.data.readers.tasks.file import TaskFile, read_task_file
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


def check_names(train: Iterable[Path], holdout: Iterable[Path]) -> None:
    """`DataError` where two of these task files share a name: the rows of one would be shown solved before the other's.

    A held-out file may have a training file's name where it asks in the same ways: the same task, its other rows.
    """
    trained, held = _by_name(train), _by_name(holdout)
    clashes = [files for part in (trained, held) for files in part.values() if len(files) > 1]
    both = [(trained[name][0], held[name][0]) for name in held if name in trained]
    clashes += [[first, second] for first, second in both if not first.asks_like(second)]
    if clashes:
        raise DataError([_same_name(first, second) for first, second, *_ in clashes])


def _by_name(paths: Iterable[Path]) -> dict[str, list[TaskFile]]:
    found: dict[str, list[TaskFile]] = {}
    for path in {path.resolve(): path for path in paths}.values():
        file = read_task_file(path)
        found.setdefault(file.spec.name, []).append(file)
    return found


def _same_name(first: TaskFile, second: TaskFile) -> Problem:
    what = f'the task of {first.path} is called "{first.spec.name}", too'
    return Problem(
        second.where("name"), what, "give each task its own name; one task may have several files of rows"
    )


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
