"""A run says before its first step that disk or memory have no room for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from aligner.errors import ModelError, StorageError
from aligner.stages.sft import train_sft
from tests.stages import test_sft
from tests.stages.ppo_world import recipe, run_it, write_world
from tests.stages.tools import open_run


def disk_with(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=free))


def memory_of(monkeypatch: pytest.MonkeyPatch, total: int, available: int) -> None:
    real = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: real._replace(total=total, available=available))


def bytes_learnt(world: Path) -> int:
    """The base's weights, and a critic's head: a number for each of them and one for the bias."""
    base = load_file(world / "base/model.safetensors")
    width = next(tensor.shape[0] for name, tensor in base.items() if name.endswith("norm.weight"))
    return 4 * (sum(tensor.numel() for tensor in base.values()) + width + 1)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"checkpoint_every": 1}, 1 + 3 * 3),  # the model; three checkpoints of weights and two moments
        ({"checkpoint_every": 1, "keep_best": "gold"}, 1 + 3 * 4),
        ({}, 1 + 3),  # a checkpoint at an interrupt
    ],
)
def test_ppo_asks_for_the_room_of_its_checkpoints_and_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], parts: int
) -> None:
    world = write_world(tmp_path)
    needed = parts * bytes_learnt(world)
    disk_with(monkeypatch, needed - 1)
    with pytest.raises(StorageError, match="are needed for checkpoints and model") as caught:
        run_it(recipe(world, tmp_path / "run", steps=1, **settings))
    assert ("checkpoint_every" in str(caught.value)) == ("checkpoint_every" in settings)
    disk_with(monkeypatch, needed)
    run_it(recipe(world, tmp_path / "run", steps=1, **settings))


def test_a_training_that_no_batch_makes_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = write_world(tmp_path)
    memory_of(monkeypatch, 2 * bytes_learnt(world) - 1, 0)
    with pytest.raises(ModelError, match=r"training takes .* whatever the batch; the machine has"):
        run_it(recipe(world, tmp_path / "run", steps=1))
    memory_of(monkeypatch, 2 * bytes_learnt(world), 0)
    run_it(recipe(world, tmp_path / "run", steps=1))
    assert "and 0.00 GiB are free" in capsys.readouterr().err


def test_a_trainers_stage_is_refused_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = test_sft.recipe(tmp_path, steps=1)
    memory_of(monkeypatch, 1000, 1000)
    with open_run(asked) as run, pytest.raises(ModelError, match="whatever the batch"):
        train_sft(asked, run)
