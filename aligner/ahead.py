"""What can be told of a plan before its first stage runs: rows, rewards, models that are not there or do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from aligner.errors import ModelError, Problem, RecipeError
from aligner.models.weights import ADAPTER_CONFIG, has_config, model_in
from aligner.planning import PlannedStage, bases_of, is_recipe, named_stage, shape_ahead, unfinished
from aligner.preflight import check_ahead
from aligner.recipe.check import near_path
from aligner.recipe.stage import TunedRecipe


def check_plan(planned: Sequence[PlannedStage], *, fresh: bool) -> None:
    """Raise everything that can be known of the stages that are not finished, and of the recipes they name."""
    ahead = unfinished(planned, fresh=fresh)
    check_ahead([stage.recipe for stage in ahead])
    by_name = {stage.name: stage for stage in planned}
    problems = [problem for stage in ahead for problem in _misnamed(stage, planned)]
    problems += [problem for stage in ahead for problem in _adapters(stage, by_name)]
    problems += _unknown(ahead)
    if problems:
        raise RecipeError(problems)


def is_elsewhere(base: str) -> bool:
    """Whether a base is no stage, recipe or folder, so that the Hub is asked for it."""
    return not (base.startswith("@") or is_recipe(base) or Path(base).expanduser().exists())


def _unknown(ahead: Sequence[PlannedStage]) -> list[Problem]:
    """Models that are neither a folder here, nor a stage or recipe, nor on the Hub."""
    named = {base: stage for stage in ahead for base in bases_of(stage.recipe) if is_elsewhere(base)}
    if not named:
        return []
    from aligner.hub.ask import unknown_model  # its client is slow to import, so only where it is needed

    found = {base: unknown_model(base) for base in sorted(named)}
    return [_placed(problem, base, named[base]) for base, problem in found.items() if problem]


def _placed(problem: Problem, base: str, stage: PlannedStage) -> Problem:
    """Where the base is written, and the folder that may have been meant."""
    near = near_path(Path(base), stage.path)
    return Problem(
        stage.where(base), problem.what, f"{near}\n    or {problem.remedy}" if near else problem.remedy
    )


def _misnamed(stage: PlannedStage, planned: Sequence[PlannedStage]) -> list[Problem]:
    """What a stage's adapter names and the model that it will start from does not have."""
    lora = stage.recipe.model.lora if isinstance(stage.recipe, TunedRecipe) else None
    if lora is None or (lora.targets == "all-linear" and not lora.modules_to_save):
        return []
    shape = shape_ahead(stage, planned)
    if shape is None:
        return []
    from aligner.models.adapters import check_lora  # takes torch along, so only where it is needed
    from aligner.models.small import small_shape

    try:
        check_lora(small_shape(shape), lora)
    except ModelError as error:
        return [replace(problem, where=f"{stage.path}: {problem.where}") for problem in error.problems]
    return []


def _adapters(stage: PlannedStage, planned: Mapping[str, PlannedStage]) -> Iterator[Problem]:
    """A merge without an adapter, or an adapter over an adapter: told by the loader, too, once it has the base."""
    if not isinstance(stage.recipe, TunedRecipe):
        return
    spec = stage.recipe.model
    adapter = _is_adapter(spec.base, stage, planned)
    if spec.merge and adapter is False:
        what = f'model.merge: the base "{spec.base}" is a full model, with no adapter to merge'
        yield Problem(stage.where(spec.base), what, f"set model.merge: false{_override(stage, planned)}")
    if spec.lora and not spec.merge and adapter:
        what = f'model.lora: the base "{spec.base}" is an adapter already'
        remedy = "leave lora out to go on with its adapter, or set model.merge: true to fold it in first"
        yield Problem(stage.where(spec.base), what, remedy)


def _override(stage: PlannedStage, planned: Mapping[str, PlannedStage]) -> str:
    """How the command line says so; of a recipe that another one names it says nothing."""
    if planned.get(stage.name) is not stage:
        return f" in {stage.path}"
    name = f"{stage.name}." if len(planned) > 1 or stage.name != stage.recipe.stage else ""
    return f", here or by -s {name}model.merge=false"


def _is_adapter(base: str, by: PlannedStage, planned: Mapping[str, PlannedStage]) -> bool | None:
    """Whether a base is, or will be, an adapter over another model; None where nobody can tell yet."""
    if base.startswith("@"):
        maker = planned.get(base[1:])
    elif is_recipe(base):
        maker = named_stage(base, by)
    else:
        folder = model_in(Path(base).expanduser())
        return (folder / ADAPTER_CONFIG).is_file() if has_config(folder) else None
    if maker is None or not isinstance(maker.recipe, TunedRecipe):
        return False
    spec = maker.recipe.model
    if spec.lora:
        return True
    return False if spec.merge else _is_adapter(spec.base, maker, planned)
