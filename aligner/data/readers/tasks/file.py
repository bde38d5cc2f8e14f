"""Task files and PromptSource's template files, as they are written: which rows, which templates, on which lines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from aligner.data.readers.files import find_files
from aligner.data.readers.tables import decoded
from aligner.errors import DataError, Problem, at
from aligner.recipe.task import TaskSpec, TemplateSpec, read_task_spec
from aligner.recipe.text import MapNode, Node, ScalarNode, parse, places

SEPARATOR = (
    "\ufdd0|||\ufdd0"  # between input and target; of noncharacters, which no row's own ||| has about it
)
_TAGS = ("!Template", "!TemplateMetadata")


@dataclass(frozen=True)
class TemplateText:
    """A template as it is written. `where`: its file and line; `text`: Jinja, `SEPARATOR` before the target."""

    name: str
    where: str
    text: str
    answer_choices: str | None
    inverts: bool = False
    rationale: bool = False


@dataclass(frozen=True)
class TaskFile:
    """A task file, the templates in it and in the PromptSource file that it names, and the files of its rows."""

    path: Path
    spec: TaskSpec
    templates: tuple[TemplateText, ...]
    row_files: tuple[Path, ...]
    places: dict[str, str]

    @property
    def family(self) -> str:
        """The cluster of the task, or the task itself."""
        return self.spec.family or self.spec.name

    @property
    def files(self) -> list[Path]:
        """All that the task is made from beside its own file: PromptSource's templates, the rows."""
        return [
            *([_beside(self.path, self.spec.promptsource)] if self.spec.promptsource else []),
            *self.row_files,
        ]

    def asks_like(self, other: TaskFile) -> bool:
        """Whether both write rows in the same ways: files of one task, such as its training and its test rows."""

        def ways(file: TaskFile) -> tuple[object, ...]:
            spec = file.spec
            return (
                [replace(each, where="") for each in file.templates],
                spec.inputs,
                spec.target,
                spec.answer_choices,
            )

        return ways(self) == ways(other)

    def where(self, key: str) -> str:
        """ "file:line" of a key, or of the file."""
        return self.places.get(key, str(self.path))


def read_task_file(path: Path) -> TaskFile:
    """A task file and what it names; `DataError` with every mistake in it."""
    text = decoded(path)
    tree, problems = parse(text, str(path))
    if problems and "!Template\n" in text:
        remedy = f"write a task file with name:, rows: and promptsource: {path.name}"
        raise DataError(Problem(at(path), "a template file of PromptSource, which names no rows", remedy))
    if tree is not None and not isinstance(tree, MapNode):
        problems.append(Problem(at(path, 1), "not a task file", "begin with name: and rows:"))
    if problems or not isinstance(tree, MapNode):
        raise DataError(problems)
    spec, problems = read_task_spec(tree)
    if spec is None or problems:
        raise DataError(problems)
    where = dict(places(tree))
    templates = [_own(each, spec, where[f"templates.{i}.name"]) for i, each in enumerate(spec.templates)]
    if spec.promptsource:
        taken = {each.name for each in templates}
        templates += _promptsource(_beside(path, spec.promptsource), where["promptsource"])
        if twice := [each for each in templates[len(taken) :] if each.name in taken]:
            what = f'the task has a template "{twice[0].name}" as well'
            raise DataError(Problem(twice[0].where, what, "rename the task's own"))
    return TaskFile(path, spec, tuple(templates), tuple(_row_files(path, spec, where["rows"])), where)


def choices_text(choices: str | list[str] | None) -> str | None:
    """Answer choices as one text with `SEPARATOR` between them; None where there are none."""
    text = SEPARATOR.join(choices) if isinstance(choices, list) else (choices or "").replace("|||", SEPARATOR)
    return text or None


def _own(template: TemplateSpec, spec: TaskSpec, where: str) -> TemplateText:
    target = spec.target if template.target is None else template.target
    choices = spec.answer_choices if template.answer_choices is None else template.answer_choices
    text = f"{template.input}{SEPARATOR}{target}"
    return TemplateText(
        template.name, where, text, choices_text(choices), template.inverts, template.rationale
    )


def _beside(path: Path, named: str) -> Path:
    return path.parent / Path(named).expanduser()


def _row_files(path: Path, spec: TaskSpec, where: str) -> list[Path]:
    named = [spec.rows] if isinstance(spec.rows, str) else spec.rows
    try:
        found = find_files([str(_beside(path, name)) for name in named])
    except DataError as error:
        missing = error.problems[0]
        raise DataError(Problem(where, f"rows: no data file {missing.where}", missing.remedy)) from error
    for file in found:
        _check_near(path, file, where)
    return found


def _check_near(path: Path, named: Path, where: str) -> None:
    """`DataError` where a task, which a stranger may have written, has rows far from itself and from where we are.

    Links are followed: what counts is where a file lies.
    """
    near = (path.resolve().parent.parent, Path.cwd())
    if not any(named.resolve().is_relative_to(folder) for folder in near):
        what = f"names {named}, which lies in none of {', '.join(map(str, near))}"
        raise DataError(Problem(where, what, "copy the file beside the task"))


def _promptsource(path: Path, where: str) -> list[TemplateText]:
    """The templates of a PromptSource file: Jinja with `|||` between input and target, under !Template tags."""
    if not path.is_file():
        raise DataError(
            Problem(where, f"promptsource: no file {path}", "name a templates.yaml of PromptSource")
        )
    tree, problems = parse(decoded(path), str(path), tags=_TAGS)
    found = _child(tree, "templates")
    if not problems and not isinstance(found, MapNode):
        problems.append(Problem(at(path, 1), "no templates", "name a templates.yaml of PromptSource"))
    if problems or not isinstance(found, MapNode):
        raise DataError(problems)
    return [_from_promptsource(key, entry.node) for key, entry in found.entries.items()]


def _from_promptsource(key: str, node: Node) -> TemplateText:
    jinja, name = _word(node, "jinja"), _word(node, "name")
    if not isinstance(jinja, str):
        raise DataError(
            Problem(node.place, f"the template {key} has no jinja", "mend or delete the template")
        )
    choices = _word(node, "answer_choices")
    original = _child(_child(node, "metadata"), "original_task")
    inverts = isinstance(original, ScalarNode) and original.value is False
    asked = jinja.replace("|||", SEPARATOR)
    return TemplateText(str(name or key), node.place, asked, choices_text(str(choices or "")), inverts)


def _child(node: Node | None, key: str) -> Node | None:
    return node.entries[key].node if isinstance(node, MapNode) and key in node.entries else None


def _word(node: Node, key: str) -> object:
    found = _child(node, key)
    return found.value if isinstance(found, ScalarNode) else None
