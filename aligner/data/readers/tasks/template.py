"""One template over one row: what is asked and what is answered, or why the template does not fit the row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from jinja2.sandbox import SecurityError

from aligner.data.readers.tasks.file import SEPARATOR, TemplateText
from aligner.data.readers.tasks.sandbox import CompiledTemplate, template_problems
from aligner.data.rows import Origin
from aligner.errors import DataError, Problem
from aligner.sandbox.meter import OverspentError

FAILED_SHARE = (
    0.01  # of the rows that a template is tried on; where it fails on more, and on several, it is wrong
)
CHOICES, SHUFFLED = "answer_choices", "shuffled_choices"

Luck = Callable[[int], int]  # number of a draw -> a random number of 64 bits


@dataclass(frozen=True)
class Rendering:
    """What a template makes of a row."""

    input: str
    target: str


@dataclass(frozen=True)
class Unfit:
    """Why a template makes nothing of a row: a reason that reports count, and the error, where it failed."""

    reason: str
    error: str = ""


class TaskTemplate:
    """A template that can be rendered.

    label: "task/template". fields: what it reads of a row. shuffles: whether it writes choices in a random order.
    """

    def __init__(self, task: str, written: TemplateText) -> None:
        """`DataError` for all that is wrong with the template, or that templates may not do."""
        texts = [text for text in (written.text, written.answer_choices) if text]
        problems = [found for text in texts for found in template_problems(text, written.where, written.name)]
        if problems:
            raise DataError(problems)
        self.label = f"{task}/{written.name}"
        self.written = written
        self._text = CompiledTemplate(written.text)
        self._choices = CompiledTemplate(written.answer_choices) if written.answer_choices else None
        self._always: list[str] | None = (
            None  # the choices, once known, where they are the same for every row
        )
        made = {CHOICES, SHUFFLED} if self._choices else set()
        self.shuffles = SHUFFLED in self._text.fields
        self.fields = (self._text.fields - made) | (self._choices.fields if self._choices else set())

    def render(self, fields: Mapping[str, object], origin: Origin, luck: Luck) -> Rendering | Unfit:
        """The row as this template writes it; `luck` draws the order of `shuffled_choices`.

        Whitespace around input, target and each choice is stripped. Raises DataError where the template does what it
        may not, or takes more than one rendering may.
        """
        try:
            values = dict(fields) | self._choice_values(fields, luck)
            parts = _divided(self._text.render(values))
        except (OverspentError, SecurityError) as error:
            what = f'template "{self.written.name}" on row {origin}: {error}'
            raise DataError(Problem(self.written.where, what, "shorten its loops and texts")) from error
        except Exception as error:  # whatever a stranger's template may do to values it does not expect
            return Unfit("template_failed", f"{type(error).__name__}: {error}")
        if len(parts) > 2:
            return Unfit("template_failed", "||| stands in it more than once")
        if not all(parts):
            return Unfit("empty_target" if parts[0] else "empty_input")
        return Rendering(*parts) if len(parts) == 2 else Unfit("empty_target")

    def _choice_values(self, fields: Mapping[str, object], luck: Luck) -> dict[str, list[str]]:
        if self._choices is None:
            return {}
        choices = self._always or _divided(self._choices.render(fields))
        if not self._choices.fields:
            self._always = choices
        order = in_random_order(len(choices), luck) if self.shuffles else ()
        return {CHOICES: choices, SHUFFLED: [choices[i] for i in order]}


def _divided(text: str) -> list[str]:
    return [part.strip() for part in text.split(SEPARATOR)]


@dataclass
class Trials:
    """How often templates were tried on rows, and how often they failed; the first failure of each.

    Templates are told by label and place: a source without templates has one "task/none", too.
    """

    tried: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], tuple[TaskTemplate, Origin, str]] = field(default_factory=dict)

    def note(self, template: TaskTemplate, origin: Origin, found: Rendering | Unfit) -> None:
        """Count a trial."""
        key = template.label, template.written.where
        self.tried[key] += 1
        if isinstance(found, Unfit) and found.error:
            self.failed[key] += 1
            self.first.setdefault(key, (template, origin, found.error))

    def check(self) -> None:
        """`DataError` with each template that failed on more rows than may be: all, or several and `FAILED_SHARE`."""
        problems = [
            Problem(
                template.written.where,
                f'template "{template.written.name}" fails on {self.failed[key]} of {self.tried[key]} rows,'
                f" first on {origin}: {error}",
                self._remedy(key),
            )
            for key, (template, origin, error) in self.first.items()
            if self.failed[key] > max(FAILED_SHARE * self.tried[key], 1)
            or self.failed[key] == self.tried[key]
        ]
        if problems:
            raise DataError(problems)

    def _remedy(self, key: tuple[str, str]) -> str:
        rows = "the row" if self.failed[key] == 1 else "the rows"
        guard = "guard it in the template: {% if field is defined %} ... {% endif %}"
        return f"mend or delete {rows}, or {guard}; one row, or one in {round(1 / FAILED_SHARE)}, may fail"


def in_random_order(count: int, luck: Luck) -> Iterator[int]:
    """0 to count - 1, each once; no more is drawn than is asked for (Fisher and Yates, the swaps kept in a dict)."""
    moved: dict[int, int] = {}
    for last in range(count - 1, -1, -1):
        place = luck(last) % (last + 1)
        yield moved.get(place, place)
        moved[place] = moved.get(last, last)
