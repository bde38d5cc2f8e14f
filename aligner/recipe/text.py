"""YAML text to values that know their place, and back.

The scalars are those of YAML 1.2: `no` is a word and `1e-3` a number. What would make a recipe mean something other
than it shows (a key given twice, an alias, a tag) is a mistake.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from aligner.errors import Problem

Value = None | bool | int | float | str
MAX_DEPTH = 30
_WORDS: dict[str, Value] = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "false": False,
    ".inf": math.inf,
    ".nan": math.nan,
}
_INT = re.compile(r"[-+]?[0-9]{1,400}|0o[0-7]{1,400}|0x[0-9a-fA-F]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./@*+-]*( [A-Za-z0-9_./@*+-]+)*")


@dataclass
class ScalarNode:
    """One value and its place ("file:line:column", or the override it came from)."""

    place: str
    value: Value


@dataclass
class ListNode:
    """Values in order."""

    place: str
    items: list[Node] = field(default_factory=list)


@dataclass
class MapNode:
    """Keys and their values; `place` is where the mapping's own key stands."""

    place: str
    entries: dict[str, Entry] = field(default_factory=dict)


@dataclass
class Entry:
    """A value and the place of its key."""

    place: str
    node: Node


Node = ScalarNode | ListNode | MapNode


class _UnreadableError(Exception):
    """The text cannot be understood past this point; the problem is already noted."""


def scalar(text: str) -> Value:
    """The value of an unquoted scalar under YAML 1.2's core schema."""
    known = text if text in _WORDS else text.lower()
    if known in _WORDS and text in (known, known.upper(), known.capitalize()):
        return _WORDS[known]
    if text.lower() in ("+.inf", "-.inf"):
        return math.copysign(math.inf, -1 if text[0] == "-" else 1)
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def parse(text: str, file: str, *, tags: Container[str] = ()) -> tuple[Node | None, list[Problem]]:
    """The tree of one YAML document and what is wrong with the text; no tree where it cannot be understood.

    Of `tags`, such as "!Template", only the values are read, as if the tag were not there.
    """
    reader = _Reader(file, tags)
    try:
        tree = reader.document(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        return None, [*reader.problems, _yaml_problem(error, file, text)]
    except _UnreadableError:
        return None, reader.problems
    return tree, reader.problems


def parse_value(text: str, place: str) -> tuple[Node | None, list[Problem]]:
    """The value of an override: YAML where it opens with a bracket or a quote, a plain scalar otherwise."""
    text = text.strip()
    if text[:1] not in ("[", "{", '"', "'"):
        return ScalarNode(place, scalar(text)), []
    tree, problems = parse(text, place)
    if tree is not None:
        _move(tree, place)
    return tree, [Problem(place, problem.what, problem.remedy) for problem in problems]


def node_of(value: object, place: str) -> Node:
    """The tree of a plain Python value, all of it at one place."""
    if isinstance(value, dict):
        return MapNode(place, {str(key): Entry(place, node_of(item, place)) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return ListNode(place, [node_of(item, place) for item in value])
    if value is None or isinstance(value, bool | int | float | str):
        return ScalarNode(place, value)
    raise TypeError(f"{place}: a {type(value).__name__} cannot stand in a recipe")


def plain(node: Node) -> Any:
    """The tree as dicts, lists and scalars."""
    if isinstance(node, MapNode):
        return {key: plain(entry.node) for key, entry in node.entries.items()}
    return [plain(item) for item in node.items] if isinstance(node, ListNode) else node.value


def places(node: Node, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, place) of the tree and everything in it."""
    yield path, node.place
    children: Sequence[tuple[str, Node]] = []
    if isinstance(node, MapNode):
        children = [(key, entry.node) for key, entry in node.entries.items()]
    elif isinstance(node, ListNode):
        children = [(str(index), item) for index, item in enumerate(node.items)]
    for key, child in children:
        yield from places(child, f"{path}.{key}" if path else key)


def write(value: object, indent: int = 0) -> str:
    """Plain values as block YAML that `parse` reads back to the same values."""
    pad = "  " * indent
    if isinstance(value, dict) and value:
        return "".join(f"{pad}{_scalar_text(str(key))}:{_hang(item, indent)}" for key, item in value.items())
    if isinstance(value, list) and value:
        return "".join(f"{pad}- {write(item, indent + 1)[len(pad) + 2 :]}" for item in value)
    return f"{pad}{_scalar_text(value)}\n"


def _hang(value: object, indent: int) -> str:
    if isinstance(value, dict | list) and value:
        return "\n" + write(value, indent + 1)
    return f" {_scalar_text(value)}\n"


def _scalar_text(value: object) -> str:
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and scalar(value) == value:
            return value
        quoted: str = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=math.inf)
        return quoted.rstrip("\n")
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return "{}" if isinstance(value, dict) else "[]" if isinstance(value, list) else repr(value)


def _move(node: Node, place: str) -> None:
    node.place = place
    for child in node.items if isinstance(node, ListNode) else []:
        _move(child, place)
    for entry in node.entries.values() if isinstance(node, MapNode) else []:
        entry.place = place
        _move(entry.node, place)


class _Reader:
    """Turns the parser's events into a tree, noting what a recipe may not contain."""

    def __init__(self, file: str, tags: Container[str]) -> None:
        self.file, self.tags = file, tags
        self.problems: list[Problem] = []

    def document(self, events: Iterator[Any]) -> Node:
        tree: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if tree is not None:
                    self._stop(event, "a second document", "a file holds one document: take out the line ---")
                tree = self._node(next(events), events, None, 0)
        return tree if tree is not None else ScalarNode(f"{self.file}:1:1", None)

    def _place(self, event: Any) -> str:
        return f"{self.file}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"

    def _stop(self, event: Any, what: str, remedy: str) -> None:
        self.problems.append(Problem(self._place(event), what, remedy))
        raise _UnreadableError

    def _node(self, event: Any, events: Iterator[Any], key_place: str | None, depth: int) -> Node:
        if depth > MAX_DEPTH:
            self._stop(event, "nested too deeply", f"there are at most {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            self._stop(
                event,
                f"an alias (*{event.anchor})",
                "write the value out; text that starts with * needs quotes",
            )
        if event.anchor:
            self._stop(
                event, f"an anchor (&{event.anchor})", "take it out; text that starts with & needs quotes"
            )
        if event.tag and event.tag not in self.tags:
            self._stop(event, f"a tag ({event.tag})", "take it out; text that starts with ! needs quotes")
        if isinstance(event, yaml.ScalarEvent):
            value = scalar(event.value) if event.implicit[0] and not event.style else event.value
            return ScalarNode(self._place(event), value)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                items.append(self._node(event, events, None, depth + 1))
            return ListNode(key_place or self._place(event), items)
        return self._mapping(event, events, key_place, depth)

    def _mapping(self, event: Any, events: Iterator[Any], key_place: str | None, depth: int) -> MapNode:
        found = MapNode(key_place or self._place(event))
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self._stop(event, "a key that is not a word", "a key is one word followed by a colon")
            place = self._place(event)
            entry = Entry(place, self._node(next(events), events, place, depth + 1))
            if event.value in found.entries:
                first = found.entries[event.value].place.removeprefix(f"{self.file}:").split(":")[0]
                self.problems.append(
                    Problem(
                        place, f'the key "{event.value}" is given twice', f"first on line {first}; keep one"
                    )
                )
            else:
                found.entries[event.value] = entry
        return found


def _yaml_problem(error: yaml.YAMLError, file: str, text: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        position = int(getattr(error, "position", 0))
        line = text.count("\n", 0, position) + 1
        return Problem(
            f"{file}:{line}",
            "a character that text files do not hold",
            "take it out, or write it as an escape in quotes",
        )
    place, what = f"{file}:{mark.line + 1}:{mark.column + 1}", str(getattr(error, "problem", error))
    if "expected alphabetic or numeric character" in what:
        return Problem(place, "text that starts with * or & needs quotes", 'for example "*.jsonl"')
    if "'@'" in what or "'`'" in what or "'%'" in what:
        return Problem(place, "text that starts with this character needs quotes", 'for example "@sft"')
    if "'\\t'" in what:
        return Problem(place, "a tab", "YAML is indented with spaces")
    if "mapping values are not allowed" in what:
        return Problem(
            place,
            "a colon that does not belong here",
            "check the indentation, or put text with a colon in quotes",
        )
    return Problem(place, f"not YAML: {what}", "check the indentation, brackets and quotes around here")
