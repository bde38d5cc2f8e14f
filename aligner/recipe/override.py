"""Values that are changed without touching the file: `-s key=value`, and a pipeline's `set`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

from aligner.errors import Problem
from aligner.recipe.stages import PipelineRecipe
from aligner.recipe.text import Entry, ListNode, MapNode, Node, ScalarNode, node_of, parse_value


def apply_changes(tree: MapNode, changes: Mapping[str, object], file: str) -> list[Problem]:
    """Apply dotted keys and their plain values, as a pipeline's `set` gives them."""
    problems: list[Problem] = []
    for key, value in changes.items():
        place = f"{file}, set {key}"
        problems += set_value(tree, key, node_of(value, place), place)
    return problems


def apply_overrides(tree: MapNode, overrides: Sequence[str]) -> list[Problem]:
    """Apply `-s key=value` texts in order; what is wrong with them is returned."""
    problems: list[Problem] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        place = f"-s {key}"
        if not equals or not all(key.split(".")):
            problems.append(
                Problem(f"-s {text}", "not an override", "write -s key=value, for example -s train.epochs=2")
            )
            continue
        if wrong := _no_stage(tree, key, place):
            problems.append(wrong)
            continue
        node, found = parse_value(value, place)
        problems += found
        if node is not None:
            problems += set_value(tree, _for_stage(tree, key), node, place)
    return problems


def _stages(tree: MapNode) -> list[str]:
    """The names of a pipeline's stages; [] in other recipes."""
    entry = tree.entries.get("stages")
    return list(entry.node.entries) if entry and isinstance(entry.node, MapNode) else []


def _for_stage(tree: MapNode, key: str) -> str:
    """In a pipeline, `sft.train.epochs` is short for `stages.sft.set.train.epochs`."""
    name, dot, rest = key.partition(".")
    short = dot and name in _stages(tree) and name not in PipelineRecipe.model_fields
    return f"stages.{name}.set.{rest}" if short else key


def _no_stage(tree: MapNode, key: str, place: str) -> Problem | None:
    """A key of a pipeline that begins neither with a stage nor with a key of its own."""
    stages, (name, dot, rest) = _stages(tree), key.partition(".")
    if not stages or name in (*stages, *PipelineRecipe.model_fields):
        return None
    own = [field for field in PipelineRecipe.model_fields if field != "stages"]
    close = get_close_matches(name, stages if dot else own, n=1, cutoff=0.7)
    remedy = (
        f'did you mean "{close[0]}{dot}{rest}"?'
        if close
        else f"begin with the name of a stage ({', '.join(stages)}), or write {', '.join(own)}"
    )
    return Problem(place, f'unknown key "{key}"', remedy)


def set_value(tree: MapNode, key: str, node: Node, place: str) -> Iterator[Problem]:
    """Put a value at a dotted key, making the mappings on the way; a number picks an entry of a list."""
    here: Node = tree
    parts = _split(key)
    for depth, part in enumerate(parts):
        last, so_far = depth == len(parts) - 1, ".".join(parts[:depth])
        if isinstance(here, ListNode):
            if not part.isdecimal() or int(part) >= len(here.items):
                yield Problem(place, f'"{part}" is no entry of {so_far}', _entries(here))
                return
            if last:
                here.items[int(part)] = node
            here = here.items[int(part)]
        elif isinstance(here, MapNode):
            if last:
                here.entries[part] = Entry(place, node)
            else:
                entry = here.entries.setdefault(part, Entry(place, MapNode(place)))
                if isinstance(entry.node, ScalarNode) and entry.node.value is None:
                    entry.node = MapNode(place)
                here = entry.node
        else:
            yield Problem(
                place,
                f"{so_far} = {here.value} holds no keys",
                f"set {so_far} as a whole, or take the rest off",
            )
            return


def _split(key: str) -> list[str]:
    """The parts of a dotted key; what follows `stages.NAME.set` is one key of the stage's own recipe."""
    parts = key.split(".")
    if len(parts) > 3 and parts[0] == "stages" and parts[2] == "set":
        return [*parts[:3], ".".join(parts[3:])]
    return parts


def _entries(node: ListNode) -> str:
    if not node.items:
        return "the list is empty"
    return f"entries are numbered 0 to {len(node.items) - 1}"
