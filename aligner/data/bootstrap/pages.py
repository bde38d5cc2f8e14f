"""What the model reads and writes in self-instruct: pages of tasks, and what is found on them.

A base model goes on with a page; a chat model is shown the page and asked to go on in its form. Either way the text is
read as if the page's last word (`Page.begun`) stood before what a base model wrote.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aligner.data.bootstrap.tasks import Instance, InstructionTask, one_line

NOTHING = "none"  # stands for an input that is not there
YES, NO = "Yes", "No"
_NUMBER = re.compile(r"^\s*Task \d+:", re.MULTILINE)
_NEXT_TASK = re.compile(r"^\s*Task\b", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """`text` ends before `begun`, the word a base model goes on from; `request` is what a chat model is asked."""

    text: str
    begun: str
    request: str


@dataclass(frozen=True)
class Listed:
    """An instruction on a page; not `whole` where the page ended before it did."""

    text: str
    whole: bool


def tasks_page(instructions: Sequence[str]) -> Page:
    """A list of tasks to be gone on with."""
    lines = "".join(f"Task {number}: {text}\n" for number, text in enumerate(instructions, start=1))
    first = f"Task {len(instructions) + 1}:"
    request = f"Go on with this list: write new tasks, unlike these, one a line. Begin with {first}"
    return Page(f"Here is a list of different tasks.\n\n{lines}", first, request)


def kind_page(instruction: str, examples: Sequence[InstructionTask]) -> Page:
    """Whether a task is a classification, after some that are and some that are not."""
    shown = "".join(
        f"Task: {task.instruction}\nClassification: {YES if task.classification else NO}\n\n"
        for task in examples
    )
    request = f"Is the last task a classification, with few possible answers? Say {YES} or {NO}."
    return Page(f"{shown}Task: {instruction}\n", "Classification:", request)


def instance_page(instruction: str, examples: Sequence[InstructionTask], *, label_first: bool) -> Page:
    """An instance of a task after solved ones; of a classification the output comes before the input.

    Input first, a classifier's inputs would nearly all belong to one label (the paper's 2.2).
    """
    first, second = ("Output", "Input") if label_first else ("Input", "Output")
    shown = "".join(_solved(task, label_first=label_first) for task in examples)
    request = f"Write an example of the last task: first {first}:, then {second}: on a new line."
    return Page(f"{shown}Task: {instruction}\n", f"{first}:", f'{request} An input may be "{NOTHING}".')


def _solved(task: InstructionTask, *, label_first: bool) -> str:
    instance = task.instances[0]
    fields = [f"Input: {instance.input or NOTHING}\n", f"Output: {instance.output}\n"]
    return f"Task: {task.instruction}\n{''.join(reversed(fields) if label_first else fields)}\n"


def read_tasks(text: str, *, finished: bool) -> list[Listed]:
    """The tasks of a list that was written, in order; a text without "Task 9:" holds none.

    The last one is whole when the writing `finished` or a line end follows it.
    """
    pieces = [piece.strip(" ") for piece in _NUMBER.split(text)[1:]]
    last = len(pieces) - 1
    return [
        Listed(one_line(piece.lstrip().split("\n", 1)[0]), finished or index < last or "\n" in piece.lstrip())
        for index, piece in enumerate(pieces)
    ]


def read_instance(text: str, *, finished: bool, label_first: bool) -> Instance | str:
    """The instance that was written, or why there is none: `unreadable` (a field is missing) or `cut`.

    It ends where the next task begins. A text that stopped before an end was in sight is cut.
    """
    first, second = ("Output", "Input") if label_first else ("Input", "Output")
    following = _NEXT_TASK.search(text)
    body = text[: following.start()] if following else text
    fields = re.fullmatch(rf"\s*{first}:(|.*?\n)\s*{second}:(.*)", body, re.DOTALL)
    if fields is None:
        return "unreadable" if finished or following else "cut"
    if not finished and not following:
        return "cut"
    values = dict(zip((first, second), (field.strip() for field in fields.groups()), strict=True))
    given = values["Input"]
    return Instance("" if given.casefold().strip(".<>()") == NOTHING else given, values["Output"])
