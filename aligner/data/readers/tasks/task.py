"""A task ready to be rendered: its templates, how often rows are shown solved, how often reasons are given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aligner.data.readers.records import Record, fault
from aligner.data.readers.tasks.file import SEPARATOR, TaskFile, TemplateText, choices_text
from aligner.data.readers.tasks.template import Rendering, TaskTemplate
from aligner.data.rows import Conversation, Example, Turn, row_text
from aligner.errors import DataError, Problem, nearest
from aligner.recipe.data import SourceSpec

# Where no template fits a row, the gravest of their reasons is the row's.
_GRAVEST = ("in_holdout", "control_token_in_text", "template_failed", "empty_target", "empty_input")


@dataclass(frozen=True)
class Task:
    """One task of a source.

    templates: those that only answer; rationales: those that give reasons, drawn for the share `rationale` of the rows.
    shots: the fewest and the most solved rows before a row.
    """

    path: Path
    name: str
    family: str
    templates: tuple[TaskTemplate, ...]
    rationales: tuple[TaskTemplate, ...]
    rationale: float
    shots: tuple[int, int]

    @property
    def all_templates(self) -> tuple[TaskTemplate, ...]:
        """Those that only answer, then those that give reasons."""
        return (*self.templates, *self.rationales)

    @property
    def fields(self) -> frozenset[str]:
        """All that its templates read of a row: what two rows must share to be the same row."""
        return frozenset(name for each in self.all_templates for name in each.fields)

    def example(self, record: Record, integers: Sequence[str]) -> Example:
        """A row of the table, of which only what templates read is kept."""
        values = {name: record.value[name] for name in sorted(self.fields & record.value.keys())}
        if record.cells:
            values |= {name: _whole(record, name) for name in integers if name in values}
        example = Example(record.origin, values, self)
        try:
            row_text(example).encode()
        except UnicodeEncodeError as error:
            what = "a field holds half of a surrogate pair"
            raise fault(record.origin, what, "write the character whole (UTF-8)") from error
        return example


def written_by(example: Example, templates: Sequence[TaskTemplate]) -> list[Conversation]:
    """The row by each of these templates that fits, its choices always in the same order."""
    found = [each.render(example.fields, example.origin, lambda draw: draw) for each in templates]
    return [spoken(example, text) for text in found if isinstance(text, Rendering)]


def spoken(example: Example, text: Rendering) -> Conversation:
    """A rendering of a row as what a user asks and an assistant answers."""
    turns = (Turn("user", text.input), Turn("assistant", text.target))
    return Conversation(example.origin, turns, example.family)


def load_task(file: TaskFile, spec: SourceSpec) -> Task:
    """The task as a source uses it; `DataError` for what is wrong with its templates, all at once."""
    compiled: list[TaskTemplate] = []
    problems: list[Problem] = []
    for written in _asked(file, spec):
        try:
            compiled.append(TaskTemplate(file.spec.name, written))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    reasons = tuple(each for each in compiled if each.written.rationale)
    answers = tuple(each for each in compiled if not each.written.rationale)
    if not answers and not (reasons and spec.rationale == 1):
        what = "all its templates are rationale templates" if reasons else f"no template is {spec.templates}"
        remedy = "give the source rationale: 1" if reasons else "give the source templates: all"
        raise DataError(Problem(str(file.path), what, remedy))
    return Task(
        file.path, file.spec.name, file.family, answers, reasons if spec.rationale else (), spec.rationale,
        spec.shot_range,
    )  # fmt: skip


def check_fields(task: Task, file: TaskFile, records: Sequence[Record]) -> None:
    """`DataError` with each field that a template reads and no row has."""
    known = {str(key) for record in records for key in record.value}
    problems = [
        Problem(
            each.written.where,
            f'template "{each.written.name}" reads the field "{name}", which no row of {file.row_files[0]} has',
            nearest(name, sorted(known)),
        )
        for each in task.all_templates
        for name in sorted(each.fields - known)
    ]
    problems += [
        Problem(file.where("integers"), f'integers: no column "{name}"', nearest(name, sorted(known)))
        for name in file.spec.integers
        if name not in known
    ]
    if problems and records:
        raise DataError(problems)


def _whole(record: Record, name: str) -> int:
    number = record.number(name)
    if number is None or number != int(number):
        what = f'"{name}" is "{record.value[name]}", and the task lists it among integers'
        raise fault(record.origin, what, "write a whole number, or take it out of integers")
    return int(number)


def gravest(reasons: Sequence[str]) -> str:
    """The reason for which a row is dropped that no template fits."""
    return min(reasons, key=_GRAVEST.index)


def _asked(file: TaskFile, spec: SourceSpec) -> Iterator[TemplateText]:
    """The templates that a source wants of a task."""
    if spec.templates == "none":
        yield _bare(file)
        return
    yield from (each for each in file.templates if spec.templates == "all" or not each.inverts)


def _bare(file: TaskFile) -> TemplateText:
    """The inputs alone, one a line, and the task's own target (FLAN's arm "no template", arXiv:2109.01652, 4.2)."""
    if not file.spec.inputs or file.spec.target is None:
        what = "templates: none needs the inputs and the target of the task"
        remedy = "add them to the task file, such as inputs: [text] and target: '{{ label }}'"
        raise DataError(Problem(str(file.path), what, remedy))
    inputs = "\n".join("{{ " + name + " }}" for name in file.spec.inputs)
    choices = choices_text(file.spec.answer_choices)
    return TemplateText("none", file.where("inputs"), f"{inputs}{SEPARATOR}{file.spec.target}", choices)
