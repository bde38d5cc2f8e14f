"""What can be known of a recipe without weights: that its files are there, in formats its stage can read, and apart."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from glob import iglob
from pathlib import Path
from typing import Any, get_args

from aligner.errors import Problem, RecipeError, nearest
from aligner.recipe.clean import CleanSpec, PerplexitySpec, RowCleanSpec
from aligner.recipe.data import (
    ChatFormat,
    ConversationFormat,
    DocumentFormat,
    PairFormat,
    PromptFormat,
    SftFormat,
    SourceSpec,
)
from aligner.recipe.evaluate import EvaluateRecipe
from aligner.recipe.model import FrozenModelSpec, ModelSpec
from aligner.recipe.place import HUB
from aligner.recipe.ppo import RewardSource
from aligner.recipe.shape import Visit, visit
from aligner.recipe.stage import StageRecipe
from aligner.recipe.stages import PipelineStage
from aligner.recipe.text import ListNode, MapNode, Node, ScalarNode

_MODEL_FIELDS = (
    (ModelSpec, "base"),
    (FrozenModelSpec, "base"),
    (RewardSource, "model"),
    (EvaluateRecipe, "models"),
    (EvaluateRecipe, "reward"),
)
_FILE_FIELDS = ((PipelineStage, "use"), (RewardSource, "rules"))
_MIXED_FIELDS = ((SourceSpec, "share"), (SourceSpec, "epochs"))
_MIXED_STAGES = ("sft", "reward", "dpo", "kto")
_WORD_FIELDS = ((CleanSpec, "words"), (RowCleanSpec, "words"))
_FORMATS: dict[tuple[str, str], Any] = {
    ("pretrain", "data.train"): DocumentFormat,
    ("pretrain", "data.curriculum"): DocumentFormat,
    ("pretrain", "data.holdout"): DocumentFormat,
    ("sft", "data.train"): SftFormat,
    ("sft", "data.holdout"): ConversationFormat,
    ("reward", "data.train"): PairFormat,
    ("reward", "data.holdout"): PairFormat,
    ("reward", "normalise_on"): PromptFormat,
    ("ppo", "data.train"): PromptFormat,
    ("ppo", "data.holdout"): PromptFormat,
    ("grpo", "data.train"): PromptFormat,
    ("grpo", "data.holdout"): PromptFormat,
    ("rloo", "data.train"): PromptFormat,
    ("rloo", "data.holdout"): PromptFormat,
    ("rejection", "data.train"): PromptFormat,
    ("rejection", "data.holdout"): PromptFormat,
    ("dpo", "data.train"): PairFormat,
    ("dpo", "data.holdout"): PairFormat,
    ("dpo", "watch.holdout"): PromptFormat,
    ("kto", "data.train"): PairFormat,
    ("kto", "data.holdout"): PairFormat,
    ("kto", "watch.holdout"): PromptFormat,
    ("ppo", "ptx.sources"): DocumentFormat,
    ("evaluate", "suites.documents"): DocumentFormat,
    ("evaluate", "suites.pairs"): PairFormat,
    ("evaluate", "suites.prompts"): PromptFormat,
    ("selfinstruct", "seed_tasks"): ChatFormat,
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def find_path(text: str | Path, *, beside: Path, root: str = "") -> Path:
    """The file, folder or glob a recipe names: from the working folder, else from the folder of the recipe `beside`.

    `root` stands before the text.

    Raises RecipeError, naming the nearest sibling, where neither holds it.
    """
    named = Path(root).expanduser() / Path(text).expanduser()
    for candidate in (named, beside.parent / named):
        if _exists(str(candidate)):
            return candidate
    raise RecipeError(Problem(str(beside), f"nothing at {text}", _near_path(named, beside)))


def check_files(
    tree: Node, root: type[StageRecipe], stage: str, path: Path, *, in_pipeline: bool
) -> Iterator[Problem]:
    """What is wrong with the paths, models and formats that are written; paths become where they were found."""
    sources: dict[str, list[ScalarNode]] = {}
    folder = data_root(tree)
    no_root = _check_root(tree, folder, path)
    yield from no_root
    for seen in visit(tree, root):
        where = (seen.owner, seen.name)
        if where == (SourceSpec, "path"):
            texts = sources[seen.key] = _texts(seen.entry.node)
            if isinstance(seen.entry.node, ListNode) and not seen.entry.node.items:
                yield Problem(
                    seen.entry.place, f'"{seen.key}" is empty', "give at least one file, folder or glob"
                )
            for node in [] if no_root else _of_files(texts):
                yield from _check_path(node, path, root=folder)
        elif where in _WORD_FIELDS and not no_root:
            yield from _check_paths(seen.entry.node, path, root=folder)
        elif where == (SourceSpec, "format"):
            yield from _check_format(seen, stage)
        elif where in _MIXED_FIELDS:
            yield from _check_mixed(seen, stage)
        elif where in _FILE_FIELDS:
            yield from _check_paths(seen.entry.node, path)
        elif where == (PerplexitySpec, "scores"):
            yield from _check_scores(seen.entry.node, path, in_pipeline)
        elif where in _MODEL_FIELDS:
            yield from _check_models(seen.entry.node, path, in_pipeline)
    yield from _overlaps(sources)
    if isinstance(tree, MapNode) and stage != "pipeline":
        tree.entries.pop("root", None)  # the paths have it now; a saved recipe must not put it in front again


def _check_root(tree: Node, folder: str, recipe: Path) -> list[Problem]:
    """A root that is not there is told once, and not as every file below it."""
    named = Path(folder).expanduser()
    if not folder or os.path.isdir(named) or os.path.isdir(recipe.parent / named):
        return []
    assert isinstance(tree, MapNode), "it holds the key"
    return [Problem(tree.entries["root"].node.place, f"root: no folder {folder}", _near_path(named, recipe))]


def _exists(pattern: str) -> bool:
    try:
        if os.path.isdir(pattern):
            return bool(os.listdir(pattern))
        return os.path.isfile(pattern) or any(os.path.isfile(name) for name in iglob(pattern, recursive=True))
    except (OSError, ValueError, re.error):
        return False


def _near_path(named: Path, beside: Path) -> str:
    """The nearest thing that is there, or where it was looked for."""
    if any(os.path.isdir(start) for start in (named, beside.parent / named)):
        return "the folder is empty"
    folders = [str(Path.cwd())] + ([str(beside.parent)] if beside.parent.resolve() != Path.cwd() else [])
    return near_path(named, beside) or f"looked in {' and in '.join(folders)}"


def near_path(named: Path, beside: Path) -> str:
    """A sibling of the first part of the path that is missing, with the rest of it where that is there; or ""."""
    for start in (named, beside.parent / named):
        if os.path.exists(start):
            return ""
        missing = start
        while missing.parent != missing and not os.path.isdir(missing.parent):
            missing = missing.parent
        try:
            siblings = sorted(os.listdir(missing.parent))
        except (OSError, ValueError):
            continue
        if close := _nearest_name(missing.name, siblings):
            meant = missing.parent / close
            whole = meant / start.relative_to(missing)
            return f'did you mean "{whole if _exists(str(whole)) else meant}"?'
    return ""


def _nearest_name(name: str, there: list[str]) -> str | None:
    """A name that is spelt nearly the same; an ending in common (.jsonl) is not taken for likeness."""
    stem, _, ending = name.partition(".")
    stems = {other.partition(".")[0]: other for other in there if other.partition(".")[2] == ending}
    if close := get_close_matches(stem, stems, n=1, cutoff=0.65):
        return stems[close[0]]
    return next((other for other in there if other.partition(".")[0] == stem), None)


def _texts(node: Node) -> list[ScalarNode]:
    """The text scalars of a node, whether it is one, a list or a mapping of them."""
    if isinstance(node, ScalarNode):
        return [node] if isinstance(node.value, str) else []
    nodes = node.items if isinstance(node, ListNode) else [entry.node for entry in node.entries.values()]
    return [text for item in nodes for text in _texts(item)]


def _of_files(nodes: list[ScalarNode]) -> list[ScalarNode]:
    """Those that name files, and no data set on the Hub."""
    return [node for node in nodes if not str(node.value).startswith(HUB)]


def data_root(tree: Node) -> str:
    """The folder that stands before the sources' paths; "" where the recipe names none."""
    entry = tree.entries.get("root") if isinstance(tree, MapNode) else None
    value = entry.node.value if entry and isinstance(entry.node, ScalarNode) else None
    return value if isinstance(value, str) else ""


def _check_paths(node: Node, recipe: Path, *, root: str = "") -> Iterator[Problem]:
    for text in _texts(node):
        yield from _check_path(text, recipe, root=root)


def _check_path(node: ScalarNode, recipe: Path, *, root: str = "") -> Iterator[Problem]:
    try:
        node.value = str(find_path(str(node.value), beside=recipe, root=root))
    except RecipeError as error:
        yield Problem(node.place, error.problems[0].what, error.problems[0].remedy)


def _check_models(node: Node, recipe: Path, in_pipeline: bool) -> Iterator[Problem]:
    for text in _texts(node):
        yield from _check_model(text, recipe, in_pipeline)


def _check_model(node: ScalarNode, recipe: Path, in_pipeline: bool) -> Iterator[Problem]:
    """A name of a model is "@stage", a recipe, a folder, or else it has the form of a Hub id."""
    text = str(node.value)
    if text.startswith("@"):
        remedy = "aligner run the pipeline, or name a run folder, a Hub id or a pretrain recipe"
        yield from _check_stage(node, remedy, in_pipeline)
    elif text.endswith((".yaml", ".yml")):
        yield from _check_path(node, recipe)
    elif os.path.isdir(found := Path(text).expanduser()) or os.path.isdir(found := recipe.parent / found):
        node.value = str(found)
    elif not _HUB_ID.fullmatch(text):
        yield Problem(node.place, f"no folder {text}", _near_path(Path(text).expanduser(), recipe))


def _check_scores(node: Node, recipe: Path, in_pipeline: bool) -> Iterator[Problem]:
    if isinstance(node, ScalarNode) and str(node.value).startswith("@"):
        yield from _check_stage(node, "aligner run the pipeline, or name a run of the stage", in_pipeline)
    else:
        yield from _check_paths(node, recipe)


def _check_stage(node: ScalarNode, remedy: str, in_pipeline: bool) -> Iterator[Problem]:
    if not in_pipeline:
        what = f'"{node.value}" names a stage of a pipeline, and this recipe is run by itself'
        yield Problem(node.place, what, remedy)


def _check_format(seen: Visit, stage: str) -> Iterator[Problem]:
    value = seen.entry.node.value if isinstance(seen.entry.node, ScalarNode) else None
    known = get_args(SourceSpec.model_fields["format"].annotation)
    for (of_stage, prefix), formats in _FORMATS.items():
        fits = get_args(formats)
        if (
            stage == of_stage
            and seen.key.startswith(f"{prefix}.")
            and value in known
            and value not in (*fits, "auto")
        ):
            what = f'{seen.key} = "{value}": these rows do not fit here'
            yield Problem(seen.entry.node.place, what, nearest(str(value), fits))


def _check_mixed(seen: Visit, stage: str) -> Iterator[Problem]:
    """What a source says of a mixture is of use in `data.train` of the stages that have one."""
    left_out = isinstance(seen.entry.node, ScalarNode) and seen.entry.node.value is None
    if not left_out and (stage not in _MIXED_STAGES or not seen.key.startswith("data.train.")):
        what = f"{seen.key}: no mixture is made of these sources"
        yield Problem(
            seen.entry.node.place, what, f"leave it out; data.train of {' and '.join(_MIXED_STAGES)} has one"
        )


def _overlaps(sources: dict[str, list[ScalarNode]]) -> Iterator[Problem]:
    """Files that are both trained on and held out, or evaluated on."""
    for key, held in sources.items():
        if not key.startswith(("data.holdout", "data.decontaminate", "watch.holdout")):
            continue
        trained = {
            name
            for other, nodes in sources.items()
            if other.startswith(("data.train", "data.curriculum"))
            for name in _files(nodes)
        }
        for node in held:
            if both := sorted(_files([node]) & trained):
                yield Problem(
                    node.place,
                    f"{both[0]} is trained on as well",
                    "held-out rows come from files of their own, or from rows: N",
                )


def _files(nodes: list[ScalarNode]) -> set[str]:
    found = [name for node in nodes for name in iglob(str(node.value), recursive=True)]
    inside = [
        os.path.join(name, inner) for name in found if os.path.isdir(name) for inner in os.listdir(name)
    ]
    return {os.path.realpath(name) for name in [*found, *inside] if os.path.isfile(name)}


def nearest_sibling(path: Path) -> str:
    """A remedy for a recipe file that is not there."""
    return _near_path(path, path)
