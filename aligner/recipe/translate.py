"""pydantic's findings in words of our own: where, what is wrong, what would work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aligner.errors import Problem, nearest
from aligner.recipe.shape import arm_for, arms, choices, expected, is_change, is_spec, kind, step_down
from aligner.recipe.text import ListNode, MapNode, Node, ScalarNode, scalar

_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def translate(error: ValidationError, tree: Node, root: Any) -> Iterator[Problem]:
    """One problem for each place that pydantic objects to (a union is one place, however many alternatives it has)."""
    told: set[str] = set()
    for detail in error.errors(include_url=False):
        annotation, node, path = step_down(root, tree, detail["loc"])
        if _other_alternative(detail["loc"], annotation, node):
            continue
        key = ".".join(str(part) for part in path)
        if detail["type"] == "missing":
            key = ".".join([*([key] if key else []), str(detail["loc"][-1])])
        if key + detail["type"] in told or key in told:
            continue
        told.add(key + detail["type"] if detail["type"] == "value_error" else key)
        yield _problem(detail, key, annotation, node)


def _other_alternative(loc: Sequence[str | int], annotation: Any, node: Node) -> bool:
    """Whether this is pydantic trying a list against the `str` of `str | list[str]`: the fault is inside the list."""
    return len(arms(annotation)) > 1 and isinstance(node, ListNode) and not str(loc[-1]).startswith("list[")


def _problem(detail: ErrorDetails, key: str, annotation: Any, node: Node) -> Problem:
    sort, context = detail["type"], detail.get("ctx", {})
    if sort == "missing":
        return Problem(node.place, f'missing key "{key}"', _about(annotation, node, str(detail["loc"][-1])))
    if isinstance(node, ScalarNode) and node.value is None and is_change(node.place):
        return Problem(node.place, f'missing key "{key}"', f"it takes {expected(annotation)}")
    if sort == "value_error":
        what = str(context["error"])
        override = (
            "with -s, key=null takes a key out"
            if node.place.startswith("-s") or what.startswith("give either")
            else ""
        )
        if override and "epochs or steps" in what:
            override += f": -s {key}.epochs=null"
        return Problem(node.place, f"{key}: {what}" if key else what, override)
    if sort in _BOUNDS and isinstance(node, ScalarNode):
        name, words = _BOUNDS[sort]
        return Problem(
            node.place, f"{key} = {node.value} is out of range", f"it must be {words} {context[name]:g}"
        )
    if sort == "too_short":
        return Problem(node.place, f'"{key}" is empty', "give at least one")
    if sort == "finite_number":
        return Problem(node.place, f"{key} = {kind(node)} is not finite", f"write {expected(annotation)}")
    return Problem(node.place, *_wrong_value(key, annotation, node))


def _about(annotation: Any, node: Node, name: str) -> str:
    arm = arm_for(annotation, node)
    field = arm.model_fields[name]
    return field.description or f"it takes {expected(field.annotation)}"


def _wrong_value(key: str, annotation: Any, node: Node) -> tuple[str, str]:
    name, words = key.split(".")[-1], choices(annotation)
    if isinstance(node, ScalarNode) and isinstance(node.value, str):
        if meant := _number_meant(node.value, arms(annotation)):
            return (
                f'{key} is text, not {expected(annotation)}: "{node.value}"',
                f"write {name}: {meant} without quotes",
            )
        if words:
            return f'{key} = "{node.value}" is not one of its values', nearest(node.value, words)
    if isinstance(node, ScalarNode) and node.value is not None and not isinstance(node.value, str):
        if str in arms(annotation):
            return f"{key} must be text, not {kind(node)}", f'put it in quotes: "{kind(node)}"'
        if isinstance(node.value, float) and int in arms(annotation):
            whole = node.value.is_integer() and abs(node.value) < 1e18
            return (
                f"{key} must be a whole number, not {node.value}",
                f"write {name}: {node.value:.0f}" if whole else "",
            )
        if words:
            return f"{key} = {kind(node)} is not one of its values", f"it takes {expected(annotation)}"
    return f"{key} must be {expected(annotation)}, not {kind(node)}", _form(name, annotation, node)


def _number_meant(text: str, wanted: Sequence[Any]) -> str:
    """The number or truth value that a text was meant to be, or nothing."""
    stripped = text.strip().replace("_", "")
    value = scalar(stripped)
    if bool in wanted:
        words = {"yes": "true", "on": "true", "no": "false", "off": "false", "true": "true", "false": "false"}
        return words.get(stripped.lower(), "")
    if int in wanted and isinstance(value, int) and not isinstance(value, bool):
        return stripped
    return (
        stripped if float in wanted and isinstance(value, int | float) and not isinstance(value, bool) else ""
    )


def _form(name: str, annotation: Any, node: Node) -> str:
    """How a list or mapping is written, for whoever wrote something else."""
    wants_list = arm_for(annotation, ListNode("")) is not None
    spec = next((arm for arm in arms(annotation) if is_spec(arm)), None)
    if wants_list and isinstance(node, MapNode):
        return "put a dash before each entry: a list holds several"
    if wants_list and isinstance(node, ScalarNode) and node.value is not None:
        return f"write {name}: [{node.value}]"
    if spec is not None and isinstance(node, ScalarNode):
        return f"write {name}: {{{next(iter(spec.model_fields))}: ...}}"
    return ""
