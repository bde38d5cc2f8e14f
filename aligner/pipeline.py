"""From a recipe file to finished run folders: resolve what a stage starts from, run it, hand its artifact on.

A stage that is finished is not run again, an interrupted one goes on from its checkpoint. A base that is itself a
recipe is made first; a pretrained one is kept in a cache (see bases.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from aligner.bases import base_folder
from aligner.errors import Interrupted, Problem, RecipeError, nearest
from aligner.preflight import check_ahead, check_unchanged, folder_parents
from aligner.recipe.load import complete_yaml, find_path, load_recipe
from aligner.recipe.stages import EvaluateRecipe, PipelineRecipe, PpoRecipe, PretrainRecipe, StageRecipe
from aligner.run.folder import RunFolder, recipe_changes
from aligner.run.manifest import Manifest
from aligner.run.report import build_report


@dataclass(frozen=True)
class RunOutcome:
    """What a command did: where, and whether anything had to be done."""

    folder: Path
    status: Literal["done", "already_done"]
    results: Mapping[str, float]


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a pipeline with its recipe loaded and checked; `uses` names the stages it starts from."""

    name: str
    recipe: StageRecipe
    path: Path
    uses: tuple[str, ...]


def run_recipe(
    path: Path, overrides: Sequence[str] = (), *, stage: str | None = None, fresh: bool = False
) -> RunOutcome:
    """Run a recipe file: one stage, or a pipeline of them. Every mistake in it is told before anything is computed."""
    loaded = load_recipe(path, overrides, stage=stage)
    if isinstance(loaded.recipe, PipelineRecipe):
        outcome = run_pipeline(loaded.recipe, loaded.path, fresh=fresh)
    else:
        check_ahead(unfinished([single_stage(loaded.recipe, loaded.path)], fresh=fresh))
        outcome = run_stage(with_bases(loaded.recipe, {}, beside=loaded.path), fresh=fresh)
    if outcome.status == "done" or not (outcome.folder / "report.html").exists():
        build_report(outcome.folder)
    return outcome


def planned_stages(path: Path, overrides: Sequence[str] = ()) -> list[PlannedStage]:
    """The stages a recipe file stands for: those of a pipeline, or the one it is."""
    loaded = load_recipe(path, overrides)
    if isinstance(loaded.recipe, PipelineRecipe):
        return plan_pipeline(loaded.recipe, loaded.path)
    return [single_stage(loaded.recipe, loaded.path)]


def single_stage(recipe: StageRecipe, path: Path) -> PlannedStage:
    """A recipe that is run by itself, as a stage."""
    return PlannedStage(recipe.stage, recipe, path, ())  # type: ignore[attr-defined]


def plan_pipeline(recipe: PipelineRecipe, path: Path) -> list[PlannedStage]:
    """All stages' recipes, loaded with their changes; nothing has run yet. All mistakes are told at once."""
    planned: list[PlannedStage] = []
    problems: list[Problem] = []
    for name, entry in recipe.stages.items():
        shared = {"root": recipe.root} if recipe.root else {}
        changes = {"output": f"{recipe.output}/{name}", "seed": recipe.seed, **shared, **entry.set}
        try:
            loaded = load_recipe(find_path(entry.use, beside=path), changes=changes, in_pipeline=True)
        except RecipeError as error:
            problems += [replace(problem, what=f"stage {name}: {problem.what}") for problem in error.problems]
            continue
        uses = tuple(base[1:] for base in bases_of(loaded.recipe) if base.startswith("@"))
        problems += _unknown_stages(name, uses, list(recipe.stages)[: list(recipe.stages).index(name)], path)
        planned.append(PlannedStage(name, loaded.recipe, loaded.path, uses))
    if problems:
        raise RecipeError(problems)
    return planned


def _unknown_stages(name: str, uses: Sequence[str], earlier: Sequence[str], path: Path) -> list[Problem]:
    remedy = "earlier ones: " + ", ".join(earlier) if earlier else "the first stage has none before it"
    return [
        Problem(str(path), f'stage {name}: starts from "@{used}", which is no earlier stage',
                nearest(used, earlier) if earlier else remedy)
        for used in uses if used not in earlier
    ]  # fmt: skip


def run_pipeline(recipe: PipelineRecipe, path: Path, *, fresh: bool = False) -> RunOutcome:
    """Run the stages in order, each from the artifacts of earlier ones; finished stages are skipped.

    `fresh` throws all stages away before the first one runs: what is interrupted then goes on by the same command
    without it, and no old result stands beside new ones.
    """
    planned = plan_pipeline(recipe, path)
    check_ahead(unfinished(planned, fresh=fresh))
    folders = {stage.name: Path(stage.recipe.output) for stage in planned}
    with RunFolder.open(recipe, recipe_text=complete_yaml(recipe), fresh=fresh) as run:
        if fresh:
            _clear(planned, folders)
        done = run.finished and all(_is_finished(folder) for folder in folders.values())
        if not done:
            run.start(parents={}, data={}, seed=recipe.seed)
        results: dict[str, float] = {}
        for stage in planned:
            results |= run_stage(with_bases(stage.recipe, folders, beside=stage.path)).results
        if done:
            return RunOutcome(run.path, "already_done", results)
        # Once more, now that the models are there, and torch is loaded and knows the machine.
        models = folder_parents({name: str(folder) for name, folder in folders.items()})
        run.start(parents=models, data={}, seed=recipe.seed)
        run.finish(results)
    return RunOutcome(run.path, "done", results)


def _clear(planned: Sequence[PlannedStage], folders: Mapping[str, Path]) -> None:
    """Throw away the stages' runs; a folder that holds none is left for its stage to judge."""
    for stage in planned:
        if (folders[stage.name] / "manifest.json").exists():
            recipe = _located(stage.recipe, folders, beside=stage.path)
            RunFolder.open(recipe, recipe_text=complete_yaml(recipe), fresh=True).close()


def unfinished(stages: Sequence[PlannedStage], *, fresh: bool = False) -> list[StageRecipe]:
    """The recipes still to be run: of these stages (`fresh`: all of them), and of recipes that they start from."""
    found: list[StageRecipe] = []
    for stage in stages:
        found += unfinished(named_stages(stage))
        if fresh or not _is_finished(Path(stage.recipe.output)):
            found.append(stage.recipe)
    return found


def named_stages(stage: PlannedStage) -> list[PlannedStage]:
    """The stages whose recipes this one names as what it starts from; they are run before it."""
    return [_named_stage(base, beside=stage.path) for base in bases_of(stage.recipe) if _is_recipe(base)]


def _is_finished(folder: Path) -> bool:
    return (folder / "manifest.json").exists() and Manifest.read(folder).status == "finished"


def run_stage(recipe: StageRecipe, *, fresh: bool = False) -> RunOutcome:
    """Run one stage in its folder, or go on with it, or leave it alone when it is finished."""
    with RunFolder.open(recipe, recipe_text=complete_yaml(recipe), fresh=fresh) as run:
        if run.finished:
            check_unchanged(recipe, run)
            return RunOutcome(run.path, "already_done", run.results())
        try:
            result = stage_function(recipe)(recipe, run)
        except Interrupted as stop:
            run.fail("interrupted", str(stop))
            raise
        except Exception as error:
            run.fail("failed", str(error))
            raise
        run.finish(result.results)
    return RunOutcome(run.path, "done", result.results)


def stage_function(recipe: StageRecipe) -> Callable[..., Any]:
    """The one table from recipe to stage; imported here so that a recipe's mistakes are told before torch is loaded."""
    match recipe.stage:  # type: ignore[attr-defined]
        case "pretrain":
            from aligner.stages.pretrain import train_pretrain as function
        case "sft":
            from aligner.stages.sft import train_sft as function
        case "reward":
            from aligner.stages.reward import train_reward as function
        case "ppo":
            from aligner.stages.ppo import train_ppo as function
        case _:
            from aligner.stages.evaluate import evaluate as function
    return function


def bases_of(recipe: StageRecipe) -> list[str]:
    """Every model a recipe starts from, as it is written there."""
    match recipe:
        case PretrainRecipe():
            return []
        case EvaluateRecipe():
            return [*recipe.models.values(), *([recipe.reward] if recipe.reward else [])]
        case PpoRecipe():
            return [recipe.model.base, *(source.model for source in recipe.reward if source.model)]
        case _:
            return [recipe.model.base]  # type: ignore[attr-defined]


def with_bases(recipe: StageRecipe, folders: Mapping[str, Path], *, beside: Path) -> StageRecipe:
    """The recipe with every base a folder or a Hub id: "@name" looked up, another recipe run if it has not been."""
    for base in filter(_is_recipe, bases_of(recipe)):
        _make(_named_stage(base, beside=beside))
    return _located(recipe, folders, beside=beside)


def _make(stage: PlannedStage) -> None:
    """Run a stage that is named by its recipe, if it has not been.

    A pretrained base is known by its fingerprint, wherever its data lay: a finished one is taken as it is, and a
    half-made one from other folders is begun again.
    """
    if not isinstance(stage.recipe, PretrainRecipe):
        run_stage(with_bases(stage.recipe, {}, beside=stage.path))
        return
    folder = Path(stage.recipe.output)
    if not _is_finished(folder):
        known = (folder / "manifest.json").exists()
        moved = known and recipe_changes(Manifest.read(folder).recipe, stage.recipe.model_dump(mode="json"))
        run_stage(stage.recipe, fresh=bool(moved))


def _located(recipe: StageRecipe, folders: Mapping[str, Path], *, beside: Path) -> StageRecipe:
    """The recipe with every base where it lies, or will lie."""
    found = {base: _place(base, folders, beside) for base in bases_of(recipe)}
    match recipe:
        case PretrainRecipe():
            return recipe
        case EvaluateRecipe():
            models = {name: found[base] for name, base in recipe.models.items()}
            reward = found[recipe.reward] if recipe.reward else None
            return recipe.model_copy(update={"models": models, "reward": reward})
        case PpoRecipe():
            rewards = [
                s.model_copy(update={"model": found[s.model]}) if s.model else s for s in recipe.reward
            ]
            model = recipe.model.model_copy(update={"base": found[recipe.model.base]})
            return recipe.model_copy(update={"model": model, "reward": rewards})
        case _:
            model = recipe.model.model_copy(update={"base": found[recipe.model.base]})  # type: ignore[attr-defined]
            return recipe.model_copy(update={"model": model})


def _place(base: str, folders: Mapping[str, Path], beside: Path) -> str:
    if base.startswith("@"):
        return str(folders[base[1:]])
    return _named_stage(base, beside=beside).recipe.output if _is_recipe(base) else base


def _is_recipe(base: str) -> bool:
    return base.endswith((".yaml", ".yml"))


def _named_stage(base: str, *, beside: Path) -> PlannedStage:
    """The stage that makes a model named by its recipe.

    A pretrain recipe's base is kept in the cache under its fingerprint; any other stage's in its own output.
    """
    loaded = load_recipe(find_path(base, beside=beside))
    recipe = loaded.recipe
    if isinstance(recipe, PipelineRecipe | EvaluateRecipe):
        what = f"a {recipe.stage} recipe makes no model to start from"
        raise RecipeError(Problem(str(loaded.path), what, "name a pretrain, sft, reward or ppo recipe"))
    if isinstance(recipe, PretrainRecipe):
        recipe = recipe.model_copy(update={"output": str(base_folder(recipe))})
    return single_stage(recipe, loaded.path)
