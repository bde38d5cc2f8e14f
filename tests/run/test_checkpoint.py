"""A checkpoint is loaded as it was saved, or not at all; every generator goes on where it was."""

from __future__ import annotations

import random
from pathlib import Path

import numpy
import pytest
import torch

from aligner.errors import RunError
from aligner.run.checkpoint import damage, load_newest, save_checkpoint
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
            assert damage(newest), f"{path.name} byte {at}"
        for length in range(0, len(whole), max(1, len(whole) // 50)):
            path.write_bytes(whole[:length])
            assert damage(newest), f"{path.name} cut at {length}"
            zeroed = whole[:length] + bytes(len(whole) - length)
            path.write_bytes(zeroed)
            assert bool(damage(newest)) is (zeroed != whole), f"{path.name} with zeros from {length} on"
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


def test_an_old_versions_pickles_are_refused_not_read(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-7" / "optimizer.pt").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(
        RunError, match="checkpoint-7: a checkpoint of an older version, whose files are pickled"
    ):
        load_newest(tmp_path)


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
