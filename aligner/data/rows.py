"""The canonical rows: what every reader gives and everything after it takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from aligner.data.readers.tasks.task import Task


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model calls; `arguments` is a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; a system turn may give `tools` (a JSON list), an assistant's may call some."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tools: str = ""

    @property
    def texts(self) -> list[str]:
        """All that a template may write of it: the content, and tools, names and arguments where there are any."""
        calls = [text for call in self.tool_calls for text in (call.name, call.arguments)]
        return [self.content, *([self.tools] if self.tools else []), *calls]

    @property
    def empty(self) -> bool:
        """Whether it says nothing, calls nothing and gives no tools."""
        return not (self.content or self.tool_calls or self.tools)

    @property
    def about_tools(self) -> bool:
        """Whether only a template that knows of tools can render it."""
        return self.role == "tool" or bool(self.tool_calls or self.tools)


@dataclass(frozen=True)
class Origin:
    """Where a row came from: file, and line (or index in the file, from 1)."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Document:
    """Plain text to pretrain on; or a conversation to be rendered with the chat template."""

    origin: Origin
    text: str = ""
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """Turns, the assistant's ones to be learnt.

    Of a task's row: `template` wrote it ("task/template"), after `shots` solved ones. Of a format that tells an
    instruction from its input: `instruction_chars`, how much of the question is the instruction; and of one that says
    so, whether it is a `classification`.
    """

    origin: Origin
    turns: tuple[Turn, ...]
    family: str = ""
    template: str = ""
    shots: int = 0
    instruction_chars: int | None = field(default=None, compare=False)
    classification: bool | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt; `chosen` was preferred. `weight`: how much the pair counts in a loss."""

    origin: Origin
    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str
    margin: float | None = None
    kind: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """A question to be answered; `gold`, if any, says which answers are right (see evals/gold.py)."""

    origin: Origin
    turns: tuple[Turn, ...]
    family: str = ""
    gold: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """A row of a task: the fields that its templates read. It becomes a conversation when it is rendered."""

    origin: Origin
    fields: Mapping[str, object]
    task: Task

    @property
    def family(self) -> str:
        """The task's."""
        return self.task.family

    @cached_property
    def digest(self) -> str:
        """A hash of its content, its line and its file's name; not of the folder, so that a project may move."""
        key = f"{Path(self.origin.path).name}|{self.origin.line}|{row_text(self)}"
        return blake2b(key.encode(), digest_size=16).hexdigest()


Row = Document | Conversation | Pair | Prompt | Example


BAD_ROW = (
    "bad_row"  # the reason of rows that cannot be read, where the recipe leaves them out (`skip_bad_rows`)
)


@dataclass(frozen=True)
class Dropped:
    """A row that cannot be used; `reason` is one of the snake_case words that reports count.

    what: of a row that cannot be read (`BAD_ROW`), what is wrong with it.
    """

    origin: Origin
    reason: str
    what: str = ""


@dataclass(frozen=True)
class Rated:
    """What several annotators said of one answer by one criterion (None: nothing), to tell how far they agree."""

    origin: Origin
    criterion: str
    values: tuple[float | None, ...]


def with_contents(row: Row, change: Callable[[str], str]) -> Row:
    """The row with every piece of text changed: contents and answers, as `row_contents` gives them."""
    if isinstance(row, Pair):
        return replace(
            row,
            prompt=_changed(row.prompt, change),
            chosen=change(row.chosen),
            rejected=change(row.rejected),
        )
    if isinstance(row, Document) and not row.turns:
        return replace(row, text=change(row.text))
    if isinstance(row, Example):
        return replace(row, fields={name: _rewritten(value, change) for name, value in row.fields.items()})
    if isinstance(row, Conversation):
        return replace(row, turns=_changed(row.turns, change), instruction_chars=None)
    return replace(row, turns=_changed(row.turns, change))


def _changed(turns: tuple[Turn, ...], change: Callable[[str], str]) -> tuple[Turn, ...]:
    return tuple(replace(turn, content=change(turn.content)) for turn in turns)


def _rewritten(value: object, change: Callable[[str], str]) -> object:
    """A field with every text in it changed; names of members stay."""
    if isinstance(value, list):
        return [_rewritten(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _rewritten(item, change) for key, item in value.items()}
    return change(value) if isinstance(value, str) else value


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(item)


def row_text(row: Row) -> str:
    """All of a row's text, roles named; what two rows must share to be the same row."""
    if isinstance(row, Pair):
        return f"{turns_text(row.prompt)}\nchosen: {row.chosen}\nrejected: {row.rejected}"
    if isinstance(row, Example):
        return json.dumps(row.fields, ensure_ascii=False, sort_keys=True, default=str)
    return row.text if isinstance(row, Document) and not row.turns else turns_text(row.turns)


def turns_text(turns: tuple[Turn, ...]) -> str:
    """A conversation as "role: content" lines."""
    return "\n".join(f"{turn.role}: {' '.join(turn.texts)}" for turn in turns)


def row_contents(row: Row) -> list[str]:
    """The pieces of text that people or models wrote: contents and answers, without roles."""
    if isinstance(row, Pair):
        return [*(text for turn in row.prompt for text in turn.texts), row.chosen, row.rejected]
    if isinstance(row, Document) and not row.turns:
        return [row.text]
    if isinstance(row, Example):
        return list(_texts_in(dict(row.fields)))
    return [text for turn in row.turns for text in turn.texts]


def row_turns(row: Row) -> tuple[Turn, ...]:
    """A row's turns: of a pair those of its prompt, of plain text and of fields none."""
    if isinstance(row, Example):
        return ()
    return row.prompt if isinstance(row, Pair) else row.turns
