"""What differs between the recipe a run was made with and the one that is asked for now."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aligner.errors import Problem
from aligner.recipe.load import recorded_values
from aligner.recipe.stage import StageRecipe


def changes_since(before: Mapping[str, Any], recipe: StageRecipe) -> list[str]:
    """How a recipe differs from what a run's manifest says it was made with."""
    return recipe_changes(recorded_values(before, type(recipe)), recipe_values(recipe))


def recipe_values(recipe: StageRecipe) -> dict[str, Any]:
    """A recipe as a manifest holds it: plain JSON."""
    return dict(json.loads(json.dumps(recipe.model_dump(mode="json"))))


def recipe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key: was a, is b` for each dotted key that differs; the output's spelling may differ, it is where we are."""
    old, new = _flat(before), _flat(now)
    keys = [*old, *(key for key in new if key not in old)]
    return [
        f"{key}: was {_shown(old, key)}, is {_shown(new, key)}"
        for key in keys
        if key != "output" and old.get(key, _LEFT_OUT) != new.get(key, _LEFT_OUT)
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
