"""What differs between the recipe a run was made with and the one that is asked for now."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aligner.errors import Problem
from aligner.recipe.load import recorded_values
from aligner.recipe.stage import StageRecipe

# What a run's folder may be asked more of: what is there is the beginning of what is asked for now.
MAY_GROW = ("selfinstruct.rounds", "selfinstruct.instructions")


def changes_since(before: Mapping[str, Any], recipe: StageRecipe) -> list[str]:
    """How a recipe differs from what a run's manifest says it was made with, but for what has only grown."""
    return recipe_changes(recorded_values(before, type(recipe)), recipe_values(recipe))


def asks_more(before: Mapping[str, Any], recipe: StageRecipe) -> bool:
    """Whether a recipe asks for more of the same than what a run's manifest says it was made with."""
    old, new = _flat(before), _flat(recipe_values(recipe))
    return any(_has_grown(key, old, new) for key in MAY_GROW)


def _has_grown(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return key in MAY_GROW and key in old and key in new and old[key] < new[key]


def recipe_values(recipe: StageRecipe) -> dict[str, Any]:
    """A recipe as a manifest holds it: plain JSON."""
    return dict(json.loads(json.dumps(recipe.model_dump(mode="json"))))


def recipe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key: was a, is b` for each dotted key that differs and may not.

    The output's spelling may differ, it is where we are; what `MAY_GROW` names may be more than it was.
    """
    old, new = _flat(before), _flat(now)
    keys = [*old, *(key for key in new if key not in old)]
    return [
        f"{key}: was {_shown(old, key)}, is {_shown(new, key)}"
        for key in keys
        if key != "output"
        and old.get(key, _LEFT_OUT) != new.get(key, _LEFT_OUT)
        and not _has_grown(key, old, new)
    ]


_LEFT_OUT = object()


def _flat(values: object, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, Mapping) and values:
        return {k: v for name, value in values.items() for k, v in _flat(value, f"{prefix}{name}.").items()}
    if isinstance(values, list) and any(isinstance(value, Mapping) for value in values):
        return {k: v for i, value in enumerate(values) for k, v in _flat(value, f"{prefix}{i}.").items()}
    return {prefix.removesuffix("."): values}


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key], ensure_ascii=False) if key in flat else "left out"


def changed(path: Path, changes: Iterable[str]) -> Problem:
    """The mistake of running something else in the folder of a run that is there."""
    what = "made from something else:\n" + "\n".join(f"      {change}" for change in changes)
    remedy = (
        "name another output (-s output=...), delete the folder, or throw away the whole run with --fresh"
    )
    return Problem(str(path), what, remedy)
