"""Imports point one way, and each library has one home."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "aligner"
FLOORS: dict[str, int] = {
    "__init__": 0, "errors": 0, "recipe": 1, "sandbox": 1, "data": 2, "models": 2, "run": 2,
    "rl": 3, "evals": 3, "hub": 3, "stages": 4, "bases": 5, "preflight": 5,
    "doctor": 5, "planning": 6, "ahead": 7, "pipeline": 8, "start": 7, "preview": 8, "memory": 8, "memory_rollouts": 9, "estimates": 10, "check_rewards": 8, "check_answers": 11, "check": 12, "cli": 13,
    "__main__": 14,
}  # fmt: skip
HOMES: dict[str, tuple[str, ...]] = {
    "typer": ("cli",),
    "rich": ("cli", "run", "data.show"),
    "pydantic": ("recipe",),
    "pydantic_core": ("recipe",),
    "yaml": ("recipe",),
    "peft": ("models",),
    "bitsandbytes": ("models",),
    "trl": ("stages",),
    "huggingface_hub": ("hub",),
    "matplotlib": ("run",),
    "accelerate": ("stages", "rl"),
    "pyarrow": ("data",),
    "trafilatura": ("data",),
    "warcio": ("data",),
    "krippendorff": ("data",),
    "ftfy": ("data",),
    "py3langid": ("data",),
    "rapidfuzz": ("data",),
}
STAGES = (
    "pretrain", "sft", "reward", "ppo", "preference", "group", "evaluate", "selfinstruct", "perplexity", "publish",
)  # fmt: skip
WITHOUT_TORCH = (
    "errors", "recipe", "cli", "pipeline", "ahead", "planning", "preflight", "bases", "__init__", "__main__",
)  # fmt: skip
TORCH = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that is imported anywhere in a file, functions and TYPE_CHECKING blocks too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def room(name: str) -> str:
    return name.split(".")[0]


def wrong_way(name: str, target: str) -> bool:
    """Whether a module of ours may not import this one of ours."""
    if not target.startswith("aligner.") or room(target.removeprefix("aligner.")) not in FLOORS:
        return False
    other = room(target.removeprefix("aligner."))
    return other != room(name) and FLOORS[other] >= FLOORS[room(name)]


def away_from_home(name: str, target: str) -> bool:
    homes = HOMES.get(target.split(".")[0], ())
    return bool(homes) and not any(name == home or name.startswith(f"{home}.") for home in homes)


def test_every_module_has_a_floor() -> None:
    assert {room(name) for name, _ in modules()} <= set(FLOORS)


def test_imports_point_one_way() -> None:
    found = [
        (name, target) for name, tree in modules() for target in imported(tree) if wrong_way(name, target)
    ]
    assert found == []


def test_libraries_stay_at_home() -> None:
    found = [
        (name, target)
        for name, tree in modules()
        for target in imported(tree)
        if away_from_home(name, target)
    ]
    assert found == []


def test_a_stage_never_imports_another() -> None:
    others = {f"aligner.stages.{stage}" for stage in STAGES}
    found = [
        (name, target)
        for name, tree in modules()
        if name.removeprefix("stages.") in STAGES
        for target in imported(tree)
        if any(target == other or target.startswith(f"{other}.") for other in others - {f"aligner.{name}"})
    ]
    assert found == []


def test_recipes_and_the_command_line_know_no_torch() -> None:
    found = [
        (name, target)
        for name, tree in modules()
        if room(name) in WITHOUT_TORCH
        for target in imported(tree)
        if target.split(".")[0] in TORCH
    ]
    assert found == []


@pytest.mark.parametrize(
    ("name", "target", "wrong"),
    [
        ("data.build", "aligner.models.load", True), ("models.load", "aligner.recipe.model", False),
        ("recipe.load", "aligner.run.folder", True), ("rl.update", "aligner.evals.gold", True),
        ("stages.sft", "aligner.models.load", False), ("run.report", "aligner.errors", False),
    ],
)  # fmt: skip
def test_the_rule_itself_can_tell(name: str, target: str, wrong: bool) -> None:
    assert wrong_way(name, target) is wrong


def test_the_homes_can_tell() -> None:
    assert away_from_home("models.load", "trl.SFTTrainer") and away_from_home("data.build", "rich.table")
    assert not away_from_home("data.show", "rich.table") and not away_from_home("data.build", "json")
