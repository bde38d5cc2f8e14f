"""A checkpoint is loaded as it was saved, or not at all; every generator goes on where it was."""

from __future__ import annotations

import random
from pathlib import Path

import numpy
import pytest
import torch

from aligner.run.checkpoint import (
    checkpoint_step,
    damage,
    load_newest,
    newest_checkpoint,
    save_checkpoint,
    seal_folder,
)
from aligner.run.seed import rng_state, seed_everything, set_rng_state


def save(folder: Path, step: int, *, keep: int = 5) -> Path:
    shared = torch.arange(6.0)
    tensors = {"a": shared, "b": shared.view(2, 3).T, "c": torch.tensor(step)}
    return save_checkpoint(folder, step, tensors, {"step": step, "beta": 0.05, "big": 2**63 + 1}, keep=keep)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "none") is None
    for step in (2, 10, 9):
        save(tmp_path, step)
    step, tensors, state = load_newest(tmp_path) or pytest.fail("nothing loaded")
    assert step == 10 and state == {"step": 10, "beta": 0.05, "big": 2**63 + 1}
    assert torch.equal(tensors["b"], torch.tensor([[0.0, 3], [1, 4], [2, 5]])) and tensors["c"].item() == 10


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-3", "step-4"]


def test_any_flipped_bit_or_cut_is_seen_and_the_one_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    for path in newest.iterdir():
        whole = path.read_bytes()
        for at in range(0, len(whole), 7 if path.suffix == ".safetensors" else 1):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            if (
                '"format"' not in whole[:at].decode("latin1")[-12:]
            ):  # nobody reads a flipped version number yet
                assert damage(newest) or _says_the_same(path, whole), f"{path.name} byte {at}"
        path.write_bytes(whole[: len(whole) // 2])
        assert damage(newest)
        path.unlink()
        assert damage(newest)
        path.write_bytes(whole)
    assert damage(newest) == ""
    weights = newest / "state.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    loaded = load_newest(tmp_path)
    assert loaded is not None and loaded.step == 1
    assert "damaged checkpoint (state.safetensors has changed)" in capsys.readouterr().err
    assert (tmp_path / "damaged-step-2").exists()


def _says_the_same(path: Path, whole: bytes) -> bool:
    """A flip in the seal's own indentation or format line changes nothing that is sealed."""
    import json

    if path.name != "MANIFEST.json":
        return False
    try:
        one, other = json.loads(path.read_bytes()), json.loads(whole)
    except ValueError:
        return False
    return bool(one.get("files") == other["files"] and one.get("step") == other["step"])


def test_a_folder_somebody_else_wrote_counts_once_it_is_sealed(tmp_path: Path) -> None:
    other = tmp_path / "checkpoint-7"
    (other / "deep").mkdir(parents=True)
    (other / "deep/x").write_text("x")
    seal_folder(other, 7)
    (tmp_path / "checkpoint-30").mkdir()  # killed before its seal
    assert newest_checkpoint(tmp_path) == other
    assert checkpoint_step(other) == 7 and (tmp_path / "damaged-checkpoint-30").exists()
    (other / "deep/x").write_text("y")
    assert newest_checkpoint(tmp_path) is None


def test_a_state_that_is_no_number_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path, 1, {"a": torch.zeros(1)}, {"beta": float("nan")})
    assert list(tmp_path.iterdir()) == []


def draws() -> list[float]:
    numbers = [random.random(), random.gauss(0, 1), float(numpy.random.rand()), float(numpy.random.randn())]
    return [*numbers, *torch.rand(3).tolist(), torch.randn(1).item()]


def test_every_generator_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    seed_everything(3)
    random.gauss(0, 1)  # leaves a second gaussian waiting, in Python and in NumPy
    numpy.random.randn()
    saved = rng_state()
    save_checkpoint(tmp_path, 1, saved.tensors, {"rng": saved.state})
    expected = draws()
    assert draws() != expected
    loaded = load_newest(tmp_path)
    assert loaded is not None
    set_rng_state(loaded.tensors, loaded.state["rng"])
    assert draws() == expected


def test_a_seed_decides_every_generator() -> None:
    seed_everything(5)
    first = draws()
    seed_everything(5)
    assert draws() == first
    seed_everything(6)
    assert all(one != other for one, other in zip(draws(), first, strict=True))
