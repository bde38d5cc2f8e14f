"""The stages a recipe stands for, and where the models they start from lie, or will lie. Nothing is run here.

A base is a folder, a Hub id, "@name" for an earlier stage of the pipeline, or a recipe that is run first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from aligner.bases import base_folder
from aligner.errors import Problem, RecipeError, nearest
from aligner.preflight import CLEANED, clean_of
from aligner.recipe.evaluate import EvaluateRecipe
from aligner.recipe.load import LoadedRecipe, find_path, load_recipe
from aligner.recipe.model import ArchitectureSpec
from aligner.recipe.perplexity import PerplexityRecipe
from aligner.recipe.ppo import RewardedRecipe
from aligner.recipe.stage import StageRecipe, TunedRecipe
from aligner.recipe.stages import PipelineRecipe, PretrainRecipe, SelfInstructRecipe
from aligner.run.changes import asks_more
from aligner.run.manifest import Manifest


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its recipe loaded and checked.

    root: where data lies, if a pipeline or the command line said so; it holds for the recipes this one names, too.
    places: where each of its keys is written ("file:line:column" or the override).
    """

    name: str
    recipe: StageRecipe
    path: Path
    root: str | None = None
    places: Mapping[str, str] = field(default_factory=dict)

    def where(self, base: str) -> str:
        """Where a base is written; the recipe's file where that cannot be told."""
        values = self.recipe.model_dump()
        return next(
            (place for key, place in self.places.items() if value_at(values, key) == base), str(self.path)
        )


def planned_stages(path: Path, overrides: Sequence[str] = ()) -> list[PlannedStage]:
    """The stages a recipe file stands for: those of a pipeline, or the one it is."""
    loaded = load_recipe(path, overrides)
    if isinstance(loaded.recipe, PipelineRecipe):
        return plan_pipeline(loaded, loaded.recipe)
    return [single_stage(loaded)]


def single_stage(loaded: LoadedRecipe) -> PlannedStage:
    """A recipe that is run by itself, as a stage."""
    return PlannedStage(loaded.recipe.stage, loaded.recipe, loaded.path, loaded.given_root, loaded.places)


def plan_pipeline(pipeline: LoadedRecipe, recipe: PipelineRecipe) -> list[PlannedStage]:
    """All stages' recipes, loaded with their changes; nothing has run yet. All mistakes are told at once."""
    path = pipeline.path
    planned: list[PlannedStage] = []
    problems: list[Problem] = []
    for name, entry in recipe.stages.items():
        shared = {"root": recipe.root} if recipe.root else {}
        changes = {"output": f"{recipe.output}/{name}", "seed": recipe.seed, **shared, **entry.set}
        try:
            loaded = load_recipe(find_path(entry.use, beside=path), changes=changes, in_pipeline=True)
        except RecipeError as error:
            problems += [_of_stage(problem, name, pipeline) for problem in error.problems]
            continue
        uses = [name[1:] for name in named_in(loaded.recipe) if name.startswith("@")]
        problems += _unknown_stages(name, uses, list(recipe.stages)[: list(recipe.stages).index(name)], path)
        problems += _no_scores(name, loaded.recipe, planned, path)
        places = {key: _place_in(place, name, pipeline) for key, place in loaded.places.items()}
        planned.append(replace(single_stage(loaded), name=name, places=places))
    if problems:
        raise RecipeError(problems)
    return planned


def _of_stage(problem: Problem, name: str, pipeline: LoadedRecipe) -> Problem:
    """A stage's mistake as the pipeline's: where it is written there, and with the stage's name before keys."""
    where = _place_in(problem.where, name, pipeline)
    what, remedy = f"stage {name}: {problem.what}", problem.remedy
    if where != problem.where and problem.what.startswith("unknown key"):
        remedy = re.sub('"(.+)"', rf'"{name}.\1"', remedy)
    return Problem(where, what, remedy)


def _place_in(place: str, name: str, pipeline: LoadedRecipe) -> str:
    """The place of a value that the pipeline sets; the stage's file has all others."""
    _, changed, key = place.partition(", set ")
    return pipeline.where(f"stages.{name}.set.{key}") if changed else place


def _unknown_stages(name: str, uses: Sequence[str], earlier: Sequence[str], path: Path) -> list[Problem]:
    remedy = "earlier ones: " + ", ".join(earlier) if earlier else "the first stage has none before it"
    return [
        Problem(str(path), f'stage {name}: starts from "@{used}", which is no earlier stage',
                nearest(used, earlier) if earlier else remedy)
        for used in uses if used not in earlier
    ]  # fmt: skip


def _no_scores(name: str, recipe: StageRecipe, earlier: Sequence[PlannedStage], path: Path) -> list[Problem]:
    """The scores that a stage takes from an earlier one which measures none."""
    clean = clean_of(recipe)
    asked = clean.perplexity.scores[1:] if clean and clean.perplexity and clean.perplexity.to_come else ""
    wrong = [one for one in earlier if one.name == asked and not isinstance(one.recipe, PerplexityRecipe)]
    return [
        Problem(str(path), f'stage {name}: takes scores from "@{asked}", a stage of the kind {one.recipe.stage}',
                "name one of the stage perplexity")
        for one in wrong
    ]  # fmt: skip


def unfinished(stages: Sequence[PlannedStage], *, fresh: bool = False) -> list[PlannedStage]:
    """The stages still to be run: of these (`fresh`: all of them), and of recipes that they start from, in order."""
    found: list[PlannedStage] = []
    for stage in stages:
        found += unfinished(named_stages(stage))
        if fresh or not is_finished(Path(stage.recipe.output), stage.recipe):
            found.append(stage)
    return found


def named_stages(stage: PlannedStage) -> list[PlannedStage]:
    """The stages whose recipes this one names as what it starts from; they are run before it."""
    return [named_stage(base, stage) for base in bases_of(stage.recipe) if is_recipe(base)]


def shape_ahead(stage: PlannedStage, planned: Sequence[PlannedStage]) -> ArchitectureSpec | None:
    """The architecture that a stage will tune, where its model is pretrained first: by this plan or by a recipe.

    Of a folder or a Hub id it is not looked up: such a model is loaded before anything is trained.
    """
    by_name = {earlier.name: earlier for earlier in planned}
    while isinstance(stage.recipe, TunedRecipe):
        base = stage.recipe.model.base
        if not base.startswith("@") and not is_recipe(base):
            return None
        stage = by_name[base[1:]] if base.startswith("@") else named_stage(base, stage)
    return stage.recipe.model if isinstance(stage.recipe, PretrainRecipe) else None


def perplexity_to_come(asked: PlannedStage, seen: PlannedStage) -> bool:
    """Whether `measured_so_far` left a stage's rows as they are, since their scores are not there yet."""
    before, now = clean_of(asked.recipe), clean_of(seen.recipe)
    return bool(before and before.perplexity and not (now and now.perplexity))


def is_finished(folder: Path, recipe: StageRecipe | None = None) -> bool:
    """Whether a run in this folder came to its end; with a recipe, to one that it does not ask more than."""
    if not (folder / "manifest.json").exists():
        return False
    manifest = Manifest.read(folder)
    return manifest.status == "finished" and not (recipe and asks_more(manifest.recipe, recipe))


def bases_of(recipe: StageRecipe) -> list[str]:
    """Every model a recipe starts from, as it is written there."""
    match recipe:
        case EvaluateRecipe():
            return [*recipe.models.values(), *([recipe.reward] if recipe.reward else [])]
        case RewardedRecipe():
            return [recipe.model.base, *(source.model for source in recipe.reward if source.model)]
        case TunedRecipe() | SelfInstructRecipe() | PerplexityRecipe():
            return [recipe.model.base]
        case _:
            return []


def named_in(recipe: StageRecipe) -> list[str]:
    """Every model a recipe starts from, and the scores that its rows are cleaned with."""
    clean = clean_of(recipe)
    scores = [clean.perplexity.scores] if clean and clean.perplexity else []
    return [*bases_of(recipe), *scores]


def with_scores(recipe: StageRecipe, scores: str | None) -> StageRecipe:
    """The recipe with its rows' scores at this path; None: not cleaned by perplexity."""
    if not isinstance(recipe, CLEANED):
        return recipe
    clean = recipe.data.clean
    assert clean and clean.perplexity, "only where the recipe asks for it"
    placed = clean.perplexity.model_copy(update={"scores": scores}) if scores else None
    data = recipe.data.model_copy(update={"clean": clean.model_copy(update={"perplexity": placed})})
    return recipe.model_copy(update={"data": data})


def measured_so_far(stage: PlannedStage, planned: Sequence[PlannedStage]) -> PlannedStage:
    """The stage with its rows' scores where an earlier one wrote them, or not cleaned by them where it has not."""
    clean = clean_of(stage.recipe)
    if clean is None or clean.perplexity is None or not clean.perplexity.to_come:
        return stage
    folder = next(Path(one.recipe.output) for one in planned if one.name == clean.perplexity.scores[1:])
    return replace(stage, recipe=with_scores(stage.recipe, str(folder) if is_finished(folder) else None))


def located(stage: PlannedStage, folders: Mapping[str, Path]) -> StageRecipe:
    """The stage's recipe with every base where it lies, or will lie; `folders`: of the pipeline's stages."""
    recipe = stage.recipe
    clean = clean_of(recipe)
    if clean and clean.perplexity and clean.perplexity.to_come:
        recipe = with_scores(recipe, _place(clean.perplexity.scores, folders, stage))
    found = {base: _place(base, folders, stage) for base in bases_of(recipe)}
    match recipe:
        case EvaluateRecipe():
            models = {name: found[base] for name, base in recipe.models.items()}
            reward = found[recipe.reward] if recipe.reward else None
            return recipe.model_copy(update={"models": models, "reward": reward})
        case RewardedRecipe():
            rewards = [
                s.model_copy(update={"model": found[s.model]}) if s.model else s for s in recipe.reward
            ]
            model = recipe.model.model_copy(update={"base": found[recipe.model.base]})
            return recipe.model_copy(update={"model": model, "reward": rewards})
        case TunedRecipe() | SelfInstructRecipe() | PerplexityRecipe():
            placed = recipe.model.model_copy(update={"base": found[recipe.model.base]})
            return recipe.model_copy(update={"model": placed})
        case _:
            return recipe


def _place(base: str, folders: Mapping[str, Path], stage: PlannedStage) -> str:
    if base.startswith("@"):
        return str(folders[base[1:]])
    return named_stage(base, stage).recipe.output if is_recipe(base) else base


def value_at(values: object, key: str) -> object:
    """What a dotted key holds in plain values; None where there is nothing."""
    for part in key.split(".") if key else ():
        if isinstance(values, Mapping):
            values = values.get(part)
        elif isinstance(values, list) and part.isdecimal() and int(part) < len(values):
            values = values[int(part)]
        else:
            return None
    return values


def is_recipe(base: str) -> bool:
    """Whether a base is named by the recipe that makes it."""
    return base.endswith((".yaml", ".yml"))


def named_stage(base: str, by: PlannedStage) -> PlannedStage:
    """The stage that makes a model which `by` names by its recipe.

    A pretrain recipe's base is kept in the cache under its fingerprint; any other stage's in its own output.
    """
    changes = {"root": by.root} if by.root else {}
    loaded = load_recipe(find_path(base, beside=by.path), changes=changes)
    recipe = loaded.recipe
    if isinstance(recipe, PipelineRecipe | EvaluateRecipe | PerplexityRecipe):
        what = f"this recipe's stage is {recipe.stage}, which makes no model to start from"
        raise RecipeError(Problem(str(loaded.path), what, "name a recipe that trains one"))
    if isinstance(recipe, PretrainRecipe):
        recipe = recipe.model_copy(update={"output": str(base_folder(recipe))})
    return single_stage(replace(loaded, recipe=recipe))
