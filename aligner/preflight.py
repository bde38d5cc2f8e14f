"""What is found out before any model is loaded.

Of a run that is to come: whether its rows can be read and its reward functions are there. Of a finished one: whether
it still stands on what it was made from. No torch is needed but for reward functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aligner.data.cleaning.perplexity import scores_file
from aligner.data.read_before import check_source
from aligner.data.readers import SourceRows, check_task_names, source_files
from aligner.data.readers.files import files_sha256, find_files, joined
from aligner.data.readers.kinds import Kind, kind_read
from aligner.errors import DataError, ModelError, Problem, RunError
from aligner.models.weights import folder_identity, model_in
from aligner.recipe.clean import CleanSpec
from aligner.recipe.data import SourceSpec
from aligner.recipe.evaluate import EvaluateRecipe
from aligner.recipe.group import GroupRecipe
from aligner.recipe.perplexity import PerplexityRecipe
from aligner.recipe.ppo import PpoRecipe, RewardedRecipe
from aligner.recipe.preference import PreferenceRecipe
from aligner.recipe.stage import StageRecipe
from aligner.recipe.stages import PretrainRecipe, RewardRecipe, SelfInstructRecipe, SftRecipe
from aligner.run.changes import changed, changes_since
from aligner.run.folder import RunFolder, nothing_to_lose
from aligner.run.home import rows_home
from aligner.run.manifest import Manifest, content_of, sha256_file
from aligner.run.progress import say

# Stages whose rows are trained on.
CLEANED = PretrainRecipe | SftRecipe | RewardRecipe | PpoRecipe | GroupRecipe | PreferenceRecipe
_WHAT_IS_READ = {
    "path", "split", "config", "revision", "streaming", "take", "format", "criteria", "templates", "rationale",
    "skip_bad_rows",
}  # fmt: skip
STREAMED_AHEAD = 1000  # rows of a stream
# What a model folder says of how text becomes tokens, and where an answer ends.
SAID_OF_TOKENS = (
    "chat_template.jinja", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "generation_config.json",
)  # fmt: skip


def check_ahead(recipes: Sequence[StageRecipe]) -> None:
    """Read every source and word file once, so that what is wrong is told before anything is trained.

    Of a stream the first rows alone, and a large source not again where nothing has changed (see `check_source`).
    DataError with the first bad row of each, for a library that cleaning or self-instruct needs, and for models that
    were altered since they were trained; RecipeError for missing reward functions and rules that cannot be read.
    """
    problems: list[Problem] = []
    seen: set[tuple[str, str | None]] = set()
    for spec, kind in (found for recipe in recipes for found in sources_of(recipe)):
        spec = _ahead(spec)
        key = (str(spec.model_dump(include=_WHAT_IS_READ)), kind)
        if key in seen:
            continue
        seen.add(key)
        try:
            _tell_bad_rows(check_source(spec, kind, rows_home()))
        except DataError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    from aligner.data.clean import clean_sources  # takes numpy along, which a wrong recipe need not wait for

    for clean in (found for recipe in recipes if (found := clean_of(recipe))):
        if clean.perplexity and clean.perplexity.to_come:
            clean = clean.model_copy(update={"perplexity": None})
        try:
            clean_sources([], clean)
        except DataError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    problems += [problem for problem in _twice_named(recipes) if problem not in problems]
    problems += _missing_novelty(recipes)
    problems += [problem for recipe in recipes for problem in altered_since_training(recipe)]
    if problems:
        raise DataError(problems)
    rewards = [source for recipe in recipes if isinstance(recipe, RewardedRecipe) for source in recipe.reward]
    if any(not source.model for source in rewards):
        from aligner.rl.rewards import load_functions  # takes torch along, so only where it is needed

        load_functions(rewards)


def _tell_bad_rows(source: SourceRows | None) -> None:
    """Say how many rows the recipe leaves out since they cannot be read."""
    if source and source.bad_rows:
        told = f"{len(source.bad_rows):,} of {source.rows_read:,} rows cannot be read and are left out"
        say(f"{source.path}: {told} (skip_bad_rows); `aligner show --dropped` and manifest.json list them")


def _ahead(spec: SourceSpec) -> SourceSpec:
    """The source as it is read ahead: of a stream the first rows alone."""
    return spec.model_copy(update={"take": min(spec.take, STREAMED_AHEAD)}) if spec.take else spec


def _twice_named(recipes: Sequence[StageRecipe]) -> Iterator[Problem]:
    """Tasks of one recipe under one name; files that cannot be read are told already."""
    for recipe in recipes:
        if isinstance(recipe, SftRecipe):
            try:
                check_task_names(recipe.data.train, recipe.data.holdout.sources)
            except DataError as error:
                yield from error.problems


def _missing_novelty(recipes: Sequence[StageRecipe]) -> Sequence[Problem]:
    """What self-instruct misses; its library is an extra."""
    if not any(isinstance(recipe, SelfInstructRecipe) for recipe in recipes):
        return ()
    from aligner.data.bootstrap.filters import Novelty  # takes numpy along

    try:
        Novelty()
    except DataError as error:
        return error.problems
    return ()


def clean_of(recipe: StageRecipe) -> CleanSpec | None:
    """How a recipe's rows are cleaned, where they are."""
    return recipe.data.clean if isinstance(recipe, CLEANED) else None


def sources_of(recipe: StageRecipe) -> Iterator[tuple[SourceSpec, Kind | None]]:
    """Every source of a recipe, and the kind of rows that the stage reads from it (None: as they are)."""
    parts: list[tuple[Sequence[SourceSpec], Kind | None]] = []
    match recipe:
        case PretrainRecipe():
            parts = [(recipe.data.sources, "document")]
        case SftRecipe():
            plain = [source for source in recipe.data.train if source.plain]
            chats = [source for source in recipe.data.train if not source.plain]
            held = recipe.data.holdout.sources
            parts = [(plain, "document"), (chats, "conversation"), (held, "conversation")]
        case RewardRecipe():
            data = recipe.data
            parts = [(data.train, "pair"), (data.holdout.sources, "pair"), (recipe.normalise_on, "prompt")]
        case PreferenceRecipe():
            data = recipe.data
            parts = [(data.train, "pair"), (data.holdout.sources, "pair"), (recipe.watch.holdout, "prompt")]
        case PpoRecipe() | GroupRecipe():
            parts = [(recipe.data.train, "prompt"), (recipe.data.holdout, "prompt")]
            if isinstance(recipe, PpoRecipe) and recipe.ptx:
                parts.append((recipe.ptx.sources, "document"))
        case EvaluateRecipe():
            suites = recipe.suites
            asked = [*suites.tasks.values(), suites.prompts, suites.examples]
            parts = [(suites.documents, "document"), (suites.pairs, "pair")]
            parts += [(sources, "prompt") for sources in asked]
        case SelfInstructRecipe():
            parts = [(recipe.seed_tasks, "conversation")]
        case PerplexityRecipe():
            parts = [([source], kind_read(source, recipe.kind)) for source in recipe.sources]
    if isinstance(recipe, CLEANED) and recipe.data.decontaminate:
        parts.append((recipe.data.decontaminate.against, None))
    for sources, kind in parts:
        yield from ((source, kind) for source in sources)


def check_unchanged(recipe: StageRecipe, run: RunFolder) -> None:
    """RunError where a finished run was made from other models or other data than its recipe now finds.

    A parent or data set that is gone, or lies on the Hub, is not compared; nor is data that no report was kept of.
    """
    changes = [*_changed_parents(recipe, run.manifest.parents), *_changed_data(recipe, run.manifest.data)]
    if changes:
        what = "finished, but made from something else:\n" + "\n".join(f"      {line}" for line in changes)
        remedy = (
            "name another output (-s output=...), delete the folder, or throw away the whole run with --fresh"
        )
        raise RunError(Problem(str(run.path), what, remedy))


def altered_since_training(recipe: StageRecipe) -> Iterator[Problem]:
    """Models of finished runs that would now read or write other tokens than they were trained with.

    Their chat template, vocabulary or stop set is not the one whose hash the run's manifest has. SFT alone may teach a
    model another template. A folder that is no run's, or a model on the Hub, has no hash to compare with.
    """
    for base in () if isinstance(recipe, SftRecipe) else _roles(recipe).values():
        model = model_in(Path(base).expanduser())
        if model.name == "model" and (model.parent / "manifest.json").is_file():
            yield from _altered(model, Manifest.read(model.parent).artifacts)


def _altered(model: Path, trained: Mapping[str, str]) -> Iterator[Problem]:
    for name in SAID_OF_TOKENS if trained else ():  # a run that is not finished has no hashes yet
        before, path = trained.get(name, ""), model / name
        now = sha256_file(path) if path.is_file() else ""
        if now != before:
            told = f"sha256 was {before[:12] or 'none'}, is {now[:12] or 'none'}"
            what = f"is not what the model was trained with ({told})"
            remedy = "put it back; or, to use the model as it is now, copy its folder out of the run"
            yield Problem(str(path), what, remedy)


def check_as_trained(recipe: StageRecipe) -> None:
    """ModelError for `altered_since_training`."""
    if problems := list(altered_since_training(recipe)):
        raise ModelError(problems)


def check_agreed(recipes: Sequence[StageRecipe]) -> None:
    """RunError where the folders of these recipes hold runs of others, for all of them at once."""
    problems: list[Problem] = []
    for recipe in recipes:
        folder = Path(recipe.output)
        if (folder / "manifest.json").exists() and not nothing_to_lose(folder):
            changes = changes_since(Manifest.read(folder).recipe, recipe)
            problems += [changed(folder, changes)] if changes else []
    if problems:
        raise RunError(problems)


def folder_parents(bases: Mapping[str, str]) -> dict[str, str]:
    """ "folder#hash" of each model that lies in a folder here, by role."""
    folders = {role: model_in(Path(base).expanduser()) for role, base in bases.items()}
    return {
        role: folder_identity(folder.resolve())
        for role, folder in folders.items()
        if any(folder.glob("*.safetensors"))
    }


def _changed_parents(recipe: StageRecipe, before: Mapping[str, str]) -> Iterator[str]:
    for role, identity in folder_parents(_roles(recipe)).items():
        if "#" in before.get(role, "") and content_of(before[role]) != content_of(identity):
            yield f"{role}: was {before[role]}, is {identity}"


def _changed_data(recipe: StageRecipe, report: Mapping[str, Any]) -> Iterator[str]:
    before = dict(_hashes(report))
    clean = clean_of(recipe)
    named = [(joined(clean.words), partial(find_files, clean.words))] if clean and clean.words else []
    if clean and clean.perplexity:
        scores = clean.perplexity.scores
        named.append((scores, lambda: [scores_file(scores)]))
    here = [spec for spec, _ in sources_of(recipe) if not spec.hub_id]
    named += [(joined(spec.path), partial(source_files, spec)) for spec in here]
    for name, files in dict(named).items():
        if name in before and before[name] != (now := files_sha256(files())):
            yield f"{name}: its bytes had sha256 {before[name][:12]}, now {now[:12]}"


def _hashes(report: object) -> Iterator[tuple[str, str]]:
    """(path, sha256) of each source in a data report, however deep it lies."""
    if isinstance(report, Mapping) and "sha256" in report:
        yield str(report["path"]), str(report["sha256"])
    elif isinstance(report, Mapping):
        yield from (found for value in report.values() for found in _hashes(value))
    elif isinstance(report, list):
        yield from (found for value in report for found in _hashes(value))


def _roles(recipe: StageRecipe) -> dict[str, str]:
    """The models a stage is made from, by the role its manifest names them by."""
    match recipe:
        case EvaluateRecipe():
            return recipe.models | ({"reward": recipe.reward} if recipe.reward else {})
        case RewardedRecipe():
            rewards = {f"reward.{i}": source.model for i, source in enumerate(recipe.reward) if source.model}
            return {"base": recipe.model.base} | rewards
        case SftRecipe() | RewardRecipe() | SelfInstructRecipe() | PerplexityRecipe():
            return {"base": recipe.model.base}
        case _:
            return {}
