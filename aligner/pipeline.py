"""From a recipe file to finished run folders: resolve what a stage starts from, run it, hand its artifact on.

A stage that is finished is not run again, an interrupted one goes on from its checkpoint. A base that is itself a
recipe is made first; a pretrained one is kept in a cache (see bases.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aligner.ahead import check_plan, is_elsewhere
from aligner.errors import Interrupted
from aligner.planning import (
    PlannedStage,
    bases_of,
    is_finished,
    is_recipe,
    located,
    named_stage,
    plan_pipeline,
    single_stage,
    unfinished,
)
from aligner.preflight import check_agreed, check_as_trained, check_unchanged, folder_parents
from aligner.recipe.load import LoadedRecipe, complete_yaml, load_recipe
from aligner.recipe.stage import StageRecipe
from aligner.recipe.stages import PipelineRecipe, PretrainRecipe
from aligner.run import launch
from aligner.run.changes import changes_since
from aligner.run.checkpoint import last_step
from aligner.run.folder import RunFolder
from aligner.run.manifest import Manifest
from aligner.run.metrics import merged_results
from aligner.run.parts import PARTS
from aligner.run.progress import say
from aligner.run.report import build_report
from aligner.stages.stop import terminated_as_interrupted

if TYPE_CHECKING:
    from aligner.stages.stage import StageResult

BY_ONE = ("evaluate", "selfinstruct", "perplexity")  # the other processes of a launch wait meanwhile
Call = tuple[StageRecipe, Manifest]  # a stage and its run, as the first process tells the others of them


@dataclass(frozen=True)
class RunOutcome:
    """What a command did: where, whether anything had to be done, and what the last stage that has results found."""

    folder: Path
    status: Literal["done", "already_done"]
    results: Mapping[str, float]


@terminated_as_interrupted()
def run_recipe(
    path: Path, overrides: Sequence[str] = (), *, stage: str | None = None, fresh: bool = False
) -> RunOutcome:
    """Run a recipe file: one stage, or a pipeline of them. Every mistake in it is told before anything is computed."""
    loaded = load_recipe(path, overrides, stage=stage)
    if isinstance(loaded.recipe, PipelineRecipe):
        outcome = run_pipeline(loaded, loaded.recipe, fresh=fresh)
    else:
        single = single_stage(loaded)
        check_plan([single], fresh=fresh)
        _tell_order(unfinished([single], fresh=fresh))
        outcome = run_stage(with_bases(single, {}), fresh=fresh)
    _call_others(None)
    if outcome.status == "done" or not (outcome.folder / "report.html").exists():
        build_report(outcome.folder)
    return outcome


def _tell_order(ahead: Sequence[PlannedStage]) -> None:
    """Say which stages come before the one that was asked for, since they take their time, too."""
    stages = list({stage.recipe.output: f"{stage.path} ({stage.recipe.stage})" for stage in ahead}.values())
    if len(stages) > 1:
        say(f"{len(stages)} stages: {', then '.join(stages)}; `aligner check` tells the time of each")


def run_pipeline(loaded: LoadedRecipe, recipe: PipelineRecipe, *, fresh: bool = False) -> RunOutcome:
    """Run the stages in order, each from the artifacts of earlier ones; finished stages are skipped.

    `fresh` throws all stages away before the first one runs: what is interrupted then goes on by the same command
    without it, and no old result stands beside new ones.
    """
    planned = plan_pipeline(loaded, recipe)
    folders = {stage.name: Path(stage.recipe.output) for stage in planned}
    if not fresh:
        check_agreed([located(stage, folders) for stage in planned])
    check_plan(planned, fresh=fresh)
    with RunFolder.open(recipe, recipe_text=complete_yaml(recipe), fresh=fresh) as run:
        if fresh:
            _clear(planned, folders)
        done = run.finished and all(is_finished(folders[each.name], each.recipe) for each in planned)
        if not done:
            run.start(parents={}, data={}, seed=recipe.seed)
        results: dict[str, Mapping[str, float]] = {}
        for number, stage in enumerate(planned, start=1):
            if not done:
                ready = ", finished already" if is_finished(folders[stage.name], stage.recipe) else ""
                say(f"stage {number} of {len(planned)}: {stage.name} in {folders[stage.name]}{ready}")
            results[stage.name] = run_stage(with_bases(stage, folders)).results
        found = next((last for last in reversed(results.values()) if last), {})
        if done:
            return RunOutcome(run.path, "already_done", found)
        # Once more, now that the models are there, and torch is loaded and knows the machine.
        models = folder_parents({name: str(folder) for name, folder in folders.items()})
        run.start(parents=models, data={}, seed=recipe.seed)
        run.finish(merged_results(results))
    return RunOutcome(run.path, "done", found)


def _clear(planned: Sequence[PlannedStage], folders: Mapping[str, Path]) -> None:
    """Throw away the stages' runs; a folder that holds none is left for its stage to judge."""
    for stage in planned:
        if (folders[stage.name] / "manifest.json").exists():
            recipe = located(stage, folders)
            RunFolder.open(recipe, recipe_text=complete_yaml(recipe), fresh=True).close()


def run_stage(recipe: StageRecipe, *, fresh: bool = False) -> RunOutcome:
    """Run one stage in its folder, or go on with it, or leave it alone when it is finished."""
    with RunFolder.open(recipe, recipe_text=complete_yaml(recipe), fresh=fresh) as run:
        if run.finished:
            check_unchanged(recipe, run)
            return RunOutcome(run.path, "already_done", run.results())
        check_as_trained(recipe)
        if begun := _begun(run.path):
            say(f"{run.path}: {begun}; its data and models are read first")
        try:
            _call_others((recipe, run.manifest))
            result = _call(recipe, run)
        except Interrupted as stop:
            run.fail("interrupted", str(stop))
            raise
        except Exception as error:
            run.fail("failed", str(error))
            raise
        run.finish(result.results)
    return RunOutcome(run.path, "done", result.results)


def _begun(folder: Path) -> str:
    """What an earlier session left in a run that is not finished."""
    if step := last_step(folder / "checkpoints"):
        return f"goes on from its checkpoint of step {step}"
    return "goes on after its finished parts" if (folder / "checkpoints" / PARTS).exists() else ""


def follow() -> None:
    """What the processes beside the first of a launch do: each stage that it begins, until it has no more.

    They decide nothing and write nothing: recipes are read, folders opened and finished ones skipped by the first.
    """
    from aligner.rl.ranks import ranks_of_launch

    ranks = ranks_of_launch()
    while call := ranks.first(lambda: None):  # the first process says which
        recipe, manifest = call
        _call(recipe, RunFolder(Path(recipe.output), None, manifest))


def _call(recipe: StageRecipe, run: RunFolder) -> StageResult:
    """The stage itself; that another process of this launch is gone is told wherever it is found out."""
    function: Callable[[StageRecipe, RunFolder], StageResult] = stage_function(recipe)
    if launch.processes() == 1:
        return function(recipe, run)
    from aligner.rl.ranks import telling_of_lost_peers

    with telling_of_lost_peers():
        return function(recipe, run)


def part() -> None:
    """Close the ways between the processes of this launch, when all have done their work."""
    if launch.processes() > 1:
        from aligner.rl.ranks import ranks_of_launch

        ranks_of_launch().part()


def _call_others(call: Call | None) -> None:
    """Have the other processes of this launch, if there are any, take part in a stage; None: there are no more."""
    if launch.processes() == 1 or (call and call[0].stage in BY_ONE):
        return
    from aligner.rl.ranks import ranks_of_launch

    ranks_of_launch().first(lambda: call)


def stage_function(recipe: StageRecipe) -> Callable[..., Any]:
    """The one table from recipe to stage; imported here so that a recipe's mistakes are told before torch is loaded."""
    match recipe.stage:
        case "pretrain":
            from aligner.stages.pretrain import train_pretrain as function
        case "sft":
            from aligner.stages.sft import train_sft as function
        case "reward":
            from aligner.stages.reward import train_reward as function
        case "ppo":
            from aligner.stages.ppo import train_ppo as function
        case "dpo" | "kto":
            from aligner.stages.preference import train_preference as function
        case "grpo" | "rloo" | "rejection":
            from aligner.stages.group import train_group as function
        case "selfinstruct":
            from aligner.stages.selfinstruct import self_instruct as function
        case "perplexity":
            from aligner.stages.perplexity import measure_perplexity as function
        case _:
            from aligner.stages.evaluate import evaluate as function
    return function


def with_bases(stage: PlannedStage, folders: Mapping[str, Path]) -> StageRecipe:
    """The recipe with every base a folder or a Hub id: "@name" looked up, another recipe run if it has not been."""
    for base in bases_of(stage.recipe):
        if is_recipe(base):
            _make(named_stage(base, stage))
        elif is_elsewhere(base):
            say(f'"{base}" is no folder here, so it is taken for a model of the Hugging Face Hub')
    return located(stage, folders)


def _make(stage: PlannedStage) -> None:
    """Run a stage that is named by its recipe, if it has not been.

    A pretrained base is known by its fingerprint, wherever its data lay: a finished one is taken as it is, and a
    half-made one from other folders is begun again.
    """
    folder = Path(stage.recipe.output)
    if not is_finished(folder):
        say(f"{stage.path} comes first; its model is kept in {folder}")
    if not isinstance(stage.recipe, PretrainRecipe):
        run_stage(with_bases(stage, {}))
    elif not is_finished(folder):
        known = (folder / "manifest.json").exists()
        moved = known and changes_since(Manifest.read(folder).recipe, stage.recipe)
        run_stage(stage.recipe, fresh=bool(moved))
