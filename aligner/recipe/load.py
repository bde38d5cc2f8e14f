"""From a file to a frozen recipe. Every mistake in it is told at once, with its place and what would work."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from aligner.errors import Problem, RecipeError, nearest
from aligner.recipe.base import Spec
from aligner.recipe.check import check_files, data_root, find_path, nearest_sibling
from aligner.recipe.override import apply_changes, apply_overrides
from aligner.recipe.secrets import find_secrets
from aligner.recipe.shape import take_out_nulls, unknown_keys
from aligner.recipe.stage import StageRecipe
from aligner.recipe.stages import RECIPES, Recipe
from aligner.recipe.task import TaskSpec
from aligner.recipe.text import MapNode, Node, ScalarNode, parse, places, plain, write
from aligner.recipe.translate import translate

__all__ = ["LoadedRecipe", "complete_yaml", "find_path", "json_schema", "load_recipe"]

MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe that can be run, and where each of its values was written."""

    recipe: StageRecipe
    text: str  # the complete recipe as YAML, defaults filled in
    path: Path
    places: Mapping[str, str]  # dotted key -> "file:line:column" or the override; defaults are not in it
    given_root: str | None = None  # `root` as an override or a change set it, not as the file has it

    def where(self, key: str) -> str:
        """The place of a dotted key, or of the nearest thing around it that is written."""
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return self.places.get(key, str(self.path))


def load_recipe(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    stage: str | None = None,
    changes: Mapping[str, object] | None = None,
    in_pipeline: bool = False,
) -> LoadedRecipe:
    """Read a recipe, apply `key=value` overrides and a pipeline's `changes`, and check all that needs no weights.

    `stage` is the one the command can run, None where it runs any. "@name" is allowed `in_pipeline` only.
    Raises RecipeError with every mistake found.
    """
    text = _read(path)
    if secrets := list(
        find_secrets(text, str(path), overrides)
    ):  # alone: what else is wrong would be told with it
        raise RecipeError(secrets)
    tree, problems = parse(text, str(path))
    if tree is None:
        raise RecipeError(problems)
    if not isinstance(tree, MapNode):
        remedy = "a recipe begins with a line such as stage: sft"
        raise RecipeError([*problems, Problem(f"{path}:1:1", "not a recipe", remedy)])
    name = _stage_name(tree, stage, path, problems)
    root = RECIPES[name]
    # Before the changes as well as after, so that they find the keys that were meant.
    problems += unknown_keys(tree, root, root)
    written = tree.entries.get("root")
    problems += apply_changes(tree, changes or {}, str(path))
    problems += apply_overrides(tree, overrides)
    given_root = data_root(tree) if tree.entries.get("root") is not written else None
    problems += unknown_keys(tree, root, root)
    take_out_nulls(tree, root)
    problems += check_files(tree, root, name, path, in_pipeline=in_pipeline)
    recipe = _validate(tree, root, problems)
    if recipe is None or problems:
        raise RecipeError(sorted(problems, key=_order))
    return LoadedRecipe(recipe, complete_yaml(recipe), path, dict(places(tree)), given_root)


def complete_yaml(recipe: StageRecipe) -> str:
    """The whole recipe as YAML, defaults included, `stage` first; loading it gives the same recipe."""
    values = recipe.model_dump()
    return write({"stage": values.pop("stage"), **values})


def recorded_values(before: Mapping[str, Any], kind: type[StageRecipe]) -> Mapping[str, Any]:
    """A recipe as a run recorded it, with the options that came since at their defaults.

    One that no longer reads is given back as it is.
    """
    try:
        return kind.model_validate(before).model_dump(mode="json")
    except ValidationError:
        return before


def json_schema(stage: str | None = None) -> dict[str, Any]:
    """The JSON schema of one stage's recipes, of all of them, or of task files (`task`), for editors."""
    if stage is None:
        return TypeAdapter(Recipe).json_schema()
    known: dict[str, type[Spec]] = {**RECIPES, "task": TaskSpec}
    if stage not in known:
        raise RecipeError(Problem("", f'unknown stage "{stage}"', nearest(stage, list(known))))
    return known[stage].model_json_schema()


def _read(path: Path) -> str:
    if not path.exists():
        raise RecipeError(Problem(str(path), "no such recipe", nearest_sibling(path)))
    if path.is_dir():
        raise RecipeError(Problem(str(path), "this is a folder", "name the recipe file in it"))
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            what = f"too large for a recipe ({size:,} bytes, at most {MAX_BYTES:,})"
            raise RecipeError(Problem(str(path), what, "name the recipe, not a data file"))
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RecipeError(Problem(f"{path}:{line}", "not UTF-8 text", "save the file as UTF-8")) from None
    except OSError as error:
        raise RecipeError(
            Problem(str(path), f"cannot be read: {error.strerror}", "check its permissions")
        ) from None


def _stage_name(tree: MapNode, wanted: str | None, path: Path, problems: list[Problem]) -> str:
    """The stage; where it cannot be told there is nothing more to check, and RecipeError is raised."""
    entry = tree.entries.get("stage")
    if entry is None:
        remedy = f"begin with stage: {wanted or 'sft'}  (one of {', '.join(RECIPES)})"
        raise RecipeError([*problems, Problem(f"{path}:1:1", 'missing key "stage"', remedy)])
    name = entry.node.value if isinstance(entry.node, ScalarNode) else None
    if not isinstance(name, str) or name not in RECIPES:
        what = f'unknown stage "{name}"' if isinstance(name, str) else "stage must be a word"
        problems.append(Problem(entry.node.place, what, nearest(str(name), list(RECIPES))))
        close = problems[-1].remedy.split('"')
        if len(close) == 1:
            raise RecipeError(problems)
        entry.node = ScalarNode(entry.node.place, name := close[1])
    elif wanted is not None and name != wanted:
        command = "run" if name == "pipeline" else name
        what = f"this recipe's stage is {name}, not {wanted}"
        problems.append(Problem(entry.node.place, what, f"run it with: aligner {command} {path}"))
    return name


def _validate(tree: Node, root: type[StageRecipe], problems: list[Problem]) -> StageRecipe | None:
    try:
        return root.model_validate(plain(tree))
    except ValidationError as error:
        problems += translate(error, tree, root)
        return None


def _order(problem: Problem) -> tuple[int, int]:
    """Mistakes of the file from top to bottom, then those of the overrides."""
    place = re.search(r":(\d+):(\d+)$", problem.where)
    return (int(place[1]), int(place[2])) if place else (10**9, 0)
