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
_NEXT_TASK = re.compile(r"^\s*Task *\d*:", re.MULTILINE)
_BEGUN_TASK = re.compile(r"\n[ \t]*(T|Ta|Tas|Task *\d*)$")  # the label of a task, where writing stopped in it
_LABEL = re.compile(r"^\s*(Input|Output):", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """`text` ends before `begun`, the word a base model goes on from; `request` is what a chat model is asked."""

    text: str
    begun: str
    request: str


@dataclass(frozen=True)
class Listed:
    """An instruction on a page, its first line; `fault`: why it is no instruction as it stands, "" where it is one.

    Faults: `cut` (the page ended before it did), `several_lines` (the first alone may ask for something else).
    """

    text: str
    fault: str = ""


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

    Each is one line. The last one is whole when the writing `finished` or a line end follows it.
    """
    pieces = _NUMBER.split(text if finished else _BEGUN_TASK.sub("\n", text))[1:]
    if pieces and not finished and "\n" not in pieces[-1].lstrip():
        return [*map(_listed, pieces[:-1]), Listed(one_line(pieces[-1]), "cut")]
    return [_listed(piece) for piece in pieces]


def _listed(piece: str) -> Listed:
    line, *more = piece.strip().split("\n", 1)
    return Listed(one_line(line), "several_lines" if more else "")


def read_instance(text: str, *, finished: bool, label_first: bool) -> Instance | str:
    """The instance that was written, or why there is none: `unreadable` (a field is missing) or `cut`.

    Labels stand at the beginning of lines. It ends where the next instance or task begins, neither of which was asked
    for. A text that stopped before an end was in sight is cut.
    """
    order = ["Output", "Input"] if label_first else ["Input", "Output"]
    following = _NEXT_TASK.search(text)
    before, *parts = _LABEL.split(text[: following.start()] if following else text)
    labels, fields = parts[::2], [field.strip() for field in parts[1::2]]
    if not (finished or following or len(labels) > len(order)):
        return "cut"
    if before.strip() or labels[:3] not in (order, [*order, order[0]]):
        return "unreadable"
    values = dict(zip(order, fields[:2], strict=True))
    given = values["Input"]
    return Instance("" if given.casefold().strip(".<>()") == NOTHING else given, values["Output"])
