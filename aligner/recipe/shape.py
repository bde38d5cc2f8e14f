"""What a recipe may hold at each place: the spec classes laid over the tree that was read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from aligner.errors import Problem, nearest
from aligner.recipe.text import Entry, ListNode, MapNode, Node, ScalarNode

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "names with values",
    NoneType: "null",
}


@dataclass(frozen=True)
class Visit:
    """One field as it is written: the class it belongs to, its name, its whole dotted key and its entry."""

    owner: type[BaseModel]
    name: str
    key: str
    entry: Entry


def arms(annotation: Any) -> list[Any]:
    """The alternatives of an annotation, unions and `Annotated` taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return arms(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [arm for part in get_args(annotation) for arm in arms(part)]
    return [annotation]


def arm_for(annotation: Any, node: Node) -> Any:
    """The alternative that a node of this kind is meant for, or None."""
    for arm in arms(annotation):
        if isinstance(node, MapNode) and (is_spec(arm) or get_origin(arm) is dict):
            return arm
        if isinstance(node, ListNode) and get_origin(arm) is list:
            return arm
    return None


def is_spec(arm: Any) -> bool:
    """Whether an alternative is a part of the recipe with named fields."""
    return isinstance(arm, type) and issubclass(arm, BaseModel)


def choices(annotation: Any) -> list[str]:
    """The words a field may be set to, where it takes only certain words."""
    return [str(word) for arm in arms(annotation) if get_origin(arm) is Literal for word in get_args(arm)]


def expected(annotation: Any) -> str:
    """What belongs here, in words."""
    words = []
    for arm in arms(annotation):
        origin = get_origin(arm)
        if origin is Literal:
            words.append(", ".join(str(word) for word in get_args(arm)))
        elif origin is list:
            words.append(f"a list of {_plural(get_args(arm)[0])}")
        elif is_spec(arm):
            words.append(f"keys and values ({', '.join(list(arm.model_fields)[:4])}, ...)")
        elif arm is not NoneType:
            words.append(_WORDS.get(origin or arm, "a value"))
    return " or ".join(words)


def _plural(annotation: Any) -> str:
    words = {str: "words", int: "whole numbers", float: "numbers"}
    return words.get(annotation, "entries")


def child(annotation: Any, node: Node, name: str | int) -> tuple[Any, Node] | None:
    """The annotation and the node one step down, or None where nothing is written there."""
    arm = arm_for(annotation, node)
    if isinstance(node, ListNode) and isinstance(name, int) and name < len(node.items) and arm:
        return get_args(arm)[0], node.items[name]
    if isinstance(node, MapNode) and name in node.entries and arm:
        inner = arm.model_fields[name].annotation if is_spec(arm) else get_args(arm)[1]
        return inner, node.entries[str(name)].node
    return None


def visit(node: Node, annotation: Any, key: str = "") -> Iterator[Visit]:
    """Every field that is written, from the top down."""
    arm = arm_for(annotation, node)
    if isinstance(node, ListNode) and arm:
        for index, item in enumerate(node.items):
            yield from visit(item, get_args(arm)[0], f"{key}.{index}")
    elif isinstance(node, MapNode) and arm:
        for name, entry in list(node.entries.items()):
            inner = f"{key}.{name}" if key else name
            if is_spec(arm) and name in arm.model_fields:
                yield Visit(arm, name, inner, entry)
                yield from visit(entry.node, arm.model_fields[name].annotation, inner)
            elif not is_spec(arm):
                yield from visit(entry.node, get_args(arm)[1], inner)


def unknown_keys(node: Node, annotation: Any, root: Any, key: str = "") -> Iterator[Problem]:
    """Keys that do not exist. Each becomes the key it was meant to be, or is taken out: one slip is told once."""
    arm = arm_for(annotation, node)
    if isinstance(node, ListNode) and arm:
        for index, item in enumerate(node.items):
            yield from unknown_keys(item, get_args(arm)[0], root, f"{key}.{index}")
    elif isinstance(node, MapNode) and arm:
        if is_spec(arm):
            yield from _mend(node, arm, root, key)
        for name, entry in node.entries.items():
            inner = arm.model_fields[name].annotation if is_spec(arm) else get_args(arm)[1]
            yield from unknown_keys(entry.node, inner, root, f"{key}.{name}" if key else name)


def take_out_nulls(node: Node, annotation: Any) -> None:
    """What an override or a pipeline sets to null goes back to its default, where it cannot be null itself."""
    arm = arm_for(annotation, node)
    if isinstance(node, ListNode) and arm:
        for item in node.items:
            take_out_nulls(item, get_args(arm)[0])
    elif isinstance(node, MapNode) and arm:
        for name, entry in list(node.entries.items()):
            inner = arm.model_fields[name].annotation if is_spec(arm) else get_args(arm)[1]
            empty = isinstance(entry.node, ScalarNode) and entry.node.value is None
            if is_spec(arm) and empty and is_change(entry.place) and _has_another_default(arm, name):
                del node.entries[name]
            take_out_nulls(entry.node, inner)


def _has_another_default(spec: type[BaseModel], name: str) -> bool:
    """Whether a key that is left out means something else than null; one that must be there stays, to be told of."""
    field = spec.model_fields[name]
    return not field.is_required() and NoneType not in arms(field.annotation)


def is_change(place: str) -> bool:
    """Whether a value does not stand in the file: -s or a pipeline's `set` gave it."""
    return place.startswith("-s ") or ", set " in place


def _mend(node: MapNode, spec: type[BaseModel], root: Any, key: str) -> Iterator[Problem]:
    for name in [name for name in node.entries if name not in spec.model_fields]:
        entry = node.entries.pop(name)
        remedy = nearest(name, list(spec.model_fields))
        meant = remedy.split('"')[1] if remedy.startswith("did you mean") else ""
        before = f"{key}." if key and is_change(entry.place) else ""
        elsewhere = [whole for whole in dotted_keys(root) if whole.split(".")[-1] == name]
        if elsewhere and (not meant or meant in node.entries):  # what is there already was not meant
            remedy = f'it belongs at "{elsewhere[0]}"'
        elif meant:
            node.entries.setdefault(meant, entry)
            remedy = f'did you mean "{before}{meant}"?'
        yield Problem(entry.place, f'unknown key "{f"{key}.{name}" if key else name}"', remedy)


@cache
def dotted_keys(annotation: Any) -> tuple[str, ...]:
    """Every key a recipe of this class may hold, lists left out."""
    keys: list[str] = []
    for arm in arms(annotation):
        for name, field in arm.model_fields.items() if is_spec(arm) else []:
            keys += [name, *(f"{name}.{inner}" for inner in dotted_keys(field.annotation))]
    return tuple(keys)


def kind(node: Node) -> str:
    """What is written, in words."""
    if isinstance(node, ScalarNode):
        value = node.value
        return (
            "empty" if value is None else f'the text "{value}"' if isinstance(value, str) else _shown(value)
        )
    if isinstance(node, ListNode):
        return "a list"
    return f"keys and values ({', '.join(list(node.entries)[:3])})" if node.entries else "{}"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def step_down(annotation: Any, node: Node, path: Sequence[str | int]) -> tuple[Any, Node, list[str | int]]:
    """Follow a path as far as something is written: the annotation and node there, and how far it went."""
    gone: list[str | int] = []
    for position, name in enumerate(path):
        found = child(annotation, node, name)
        if found is None and len(arms(annotation)) > 1 and position < len(path) - 1:
            continue  # pydantic's name of an alternative of the union
        if found is None:
            break
        annotation, node = found
        gone.append(name)
    return annotation, node, gone
