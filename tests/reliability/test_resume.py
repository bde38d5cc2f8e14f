"""A run that dies after any of its checkpoints goes on to the very same bits: weights, optimiser, figures, samples."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from aligner.pipeline import run_stage
from aligner.run import checkpoint
from tests.reliability.worlds import (
    STAGES,
    STEPS,
    digests,
    moved,
    newest_checkpoint_digests,
)


def snapshots(monkeypatch: pytest.MonkeyPatch, run: Path, folder: Path) -> None:
    """Copy the run folder after each checkpoint, as a kill at that moment would leave it."""
    real = checkpoint.save_checkpoint

    def save(where: Path, step: int, *values: Any, **more: Any) -> Path:
        path = real(where, step, *values, **more)
        shutil.copytree(run, folder / str(step))
        return path

    for module in ("callback", "rollouts"):
        monkeypatch.setattr(f"aligner.stages.{module}.save_checkpoint", save)


OTHERS = ("ppo", "grpo")  # have their own: tests/stages/test_ppo_whole.py, test_group.py
TRAINERS = [name for name in STAGES if name not in OTHERS]
EVERY = range(1, STEPS + 1)
QUICK = {
    "pretrain": EVERY,
    "sft-packed-lora": EVERY,
}  # of the others, one between lines of metrics


@pytest.mark.parametrize("stage", TRAINERS)
def test_resume_is_bit_identical(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_exact(stage, QUICK.get(stage, (3,)), tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [*TRAINERS, "grpo"])
def test_resume_is_bit_identical_after_every_step(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_exact(stage, EVERY, tmp_path, monkeypatch)


def assert_exact(stage: str, steps: Iterable[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A straight run, and from each of these checkpoints another one that ends with the same bits."""
    recipe = STAGES[stage](tmp_path, "straight")
    with monkeypatch.context() as patch:
        snapshots(patch, tmp_path / "straight", tmp_path / "killed")
        run_stage(recipe)
    expected = digests(tmp_path / "straight")
    state = newest_checkpoint_digests(tmp_path / "straight")
    assert {"metrics.jsonl", "results.json"} < expected.keys()
    for step in steps:
        torch.manual_seed(99 + step)  # what the dead process had drawn is not to be had for nothing
        run = tmp_path / "killed" / str(step)
        run_stage(moved(recipe, run))
        assert digests(run) == expected, f"{stage} after step {step}"
        assert newest_checkpoint_digests(run) == state, f"{stage} after step {step}"


def test_only_safetensors_and_json_are_written(tmp_path: Path) -> None:
    run_stage(STAGES["reward"](tmp_path, "run"))
    kinds = {path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".jsonl", ".yaml", ".jinja", ".md", ""}
    newest = tmp_path / "run" / "checkpoints" / f"step-{STEPS}"
    assert {path.name for path in newest.iterdir()} == {"state.safetensors", "state.json", "MANIFEST.json"}
