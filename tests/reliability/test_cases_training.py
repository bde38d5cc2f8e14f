"""Cases 19 to 28 of forty ways in which alignment runs have failed elsewhere: training and checkpoints."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aligner.errors import RunError, StorageError, TrainingError
from aligner.pipeline import run_stage
from aligner.run.checkpoint import load_newest, save_checkpoint
from aligner.run.folder import RunFolder
from aligner.run.write import mend_leftovers
from aligner.stages import room
from aligner.stages.order import row_order
from aligner.stages.sft import answer_trainer, train_sft
from tests.reliability.crash import DIED, counted, dying_at, in_child
from tests.reliability.worlds import digests
from tests.run.fake import sft_recipe
from tests.stages import test_sft
from tests.stages.test_spikes import check_named
from tests.stages.tools import assert_same_gradients, first_gradients, open_run
from tests.tiny import tiny_tokenizer


def saved(folder: Path, step: int) -> Path:
    return save_checkpoint(folder, step, {"a": torch.arange(40.0) + step}, {"step": step})


def test_case_19_accumulation_changes_nothing(tmp_path: Path) -> None:
    """8x1 = 4x2 = 1x8 with answers of unequal lengths; for the other stages: test_micro_batches_change_nothing."""
    rows, found = test_sft.some_rows(count=24), []
    for per_device in (8, 4, 1):
        asked = test_sft.recipe(tmp_path, f"by{per_device}", steps=1, rows_per_device=per_device)
        with open_run(asked) as run:
            model = test_sft.fresh_model(lora=False)
            trainer = answer_trainer(model, tiny_tokenizer(), rows, asked.train, run, seed=0)
            found.append(first_gradients(trainer))
    assert_same_gradients(found[0], found[1])
    assert_same_gradients(found[0], found[2])


@pytest.mark.parametrize("where", ["weight", "gradient"])
def test_case_20_nan_stops_before_the_update(tmp_path: Path, where: str) -> None:
    asked = test_sft.recipe(tmp_path, checkpoint_every=1)
    model = test_sft.fresh_model(lora=False)
    embeddings = model.get_input_embeddings().weight
    with open_run(asked) as run:
        trainer = answer_trainer(
            model, tiny_tokenizer(), test_sft.some_rows(count=24), asked.train, run, seed=0
        )
        if where == "weight":
            embeddings.data[10:] = float("nan")
        else:
            embeddings.register_hook(lambda gradient: gradient * float("nan"))
        before = [weight.detach().clone() for weight in model.parameters()]
        with pytest.raises(TrainingError, match=r"of step 1 is nan") as caught:
            trainer.train()
        assert caught.value.exit_code == 4 and load_newest(run.checkpoints) is None
    pairs = zip(before, model.parameters(), strict=True)
    assert all(torch.equal(old, new) or bool(old.isnan().any()) for old, new in pairs)


def test_case_20_a_loss_spike_is_told_with_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For other stages, and for the rule itself: tests/stages/test_spikes.py."""
    check_named("reward", tmp_path, monkeypatch, capsys)


def test_case_21_kill_during_a_save(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, 1)

    def job() -> None:
        with counted(dying_at(8)):
            saved(tmp_path, 2)

    assert in_child(job) == DIED
    assert any(path.name.startswith(".tmp-") for path in tmp_path.iterdir())  # it died in the middle
    mend_leftovers(tmp_path)
    found = load_newest(tmp_path)
    assert found is not None and found.step == 1
    (saved(tmp_path, 3) / "MANIFEST.json").unlink()  # as somebody else's half-made folder would be
    found = load_newest(tmp_path)
    assert found is not None and found.step == 1
    assert "no seal: it was never finished" in capsys.readouterr().err


@pytest.mark.parametrize("harm", ["half zeros", "a bit", "a cut"])
def test_case_22_power_loss_and_bit_rot(tmp_path: Path, harm: str) -> None:
    saved(tmp_path, 1)
    weights = saved(tmp_path, 2) / "state.safetensors"
    whole = bytearray(weights.read_bytes())
    half = len(whole) // 2
    if harm == "half zeros":
        whole[half:] = bytes(len(whole) - half)
    elif harm == "a bit":
        whole[-3] ^= 4
    else:
        del whole[half:]
    weights.write_bytes(whole)
    found = load_newest(tmp_path)
    assert found is not None and found.step == 1
    assert (tmp_path / "damaged-step-2" / "state.safetensors").read_bytes() == whole  # set aside, not deleted


def test_case_23_a_full_disk_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 1)
    saved(tmp_path, 2)
    calls: list[str] = []
    with counted(calls.append):
        saved(tmp_path, 3)  # which pushes the first out
    renames = [place for place, name in enumerate(calls) if name == "rename"]
    assert "fsync" in calls[renames[-2] + 1 : renames[-1]]  # the new is durable before the old one's rename
    real = os.fsync

    def full(descriptor: int) -> None:
        real(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"disk is full \(\d+ MiB free\)") as caught:
        saved(tmp_path, 4)
    assert caught.value.exit_code == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-2", "step-3"]


def test_case_23_room_is_asked_for_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.disk_usage

    def nearly_full(path: Path) -> Any:
        return real(path)._replace(free=300_000)

    monkeypatch.setattr(room.shutil, "disk_usage", nearly_full)
    asked = test_sft.recipe(tmp_path, checkpoint_every=2)
    with open_run(asked) as run, pytest.raises(StorageError, match="1 MiB are needed .* 0 MiB are free"):
        train_sft(asked, run)


@pytest.mark.parametrize("name", ["state.json", "state.safetensors", "MANIFEST.json"])
def test_case_24_a_part_is_missing(tmp_path: Path, name: str) -> None:
    saved(tmp_path, 1)
    (saved(tmp_path, 2) / name).unlink()
    found = load_newest(tmp_path)
    assert found is not None and found.step == 1  # a checkpoint is complete or unusable


def opened(output: Path, **changes: Any) -> RunFolder:
    return RunFolder.open(sft_recipe(output, **changes), recipe_text="")


def test_case_25_recipe_changed(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(RunError, match=r"train\.learning_rate: was 0\.001, is 1e-05"):
        opened(tmp_path, learning_rate=1e-5)


def test_case_26_data_changed_and_the_order_is_a_function_of_the_recipe(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.start(parents={"base": "b#1"}, data={"train": [{"sha256": "a", "rows_used": 9}]}, seed=0)
        saved(run.checkpoints, 1)
    with opened(tmp_path) as run, pytest.raises(RunError, match="the data rows are not the ones"):
        run.start(parents={"base": "b#1"}, data={"train": [{"sha256": "b", "rows_used": 7}]}, seed=0)
    ask: Callable[[], list[int]] = lambda: row_order(rows=10, rows_per_step=4, steps=6, seed=3)  # noqa: E731
    torch.manual_seed(1)
    order = ask()
    torch.manual_seed(2)
    assert ask() == order and sorted(order[:10]) == list(range(10)) == sorted(order[10:20])


def test_case_27_a_finished_run_stays_finished(tmp_path: Path) -> None:
    asked = test_sft.recipe(tmp_path, steps=2, checkpoint_every=1)
    assert run_stage(asked).status == "done"
    made = digests(tmp_path / "run")
    for _ in range(2):
        assert run_stage(asked).status == "already_done"
        assert digests(tmp_path / "run") == made


def test_case_28_one_folder_one_run(tmp_path: Path) -> None:
    def die_with_the_lock() -> None:
        opened(tmp_path)
        os._exit(DIED)

    assert in_child(die_with_the_lock) == DIED
    with opened(tmp_path), pytest.raises(RunError, match=f"in use by another process .process {os.getpid()}"):
        opened(tmp_path)
