"""A process that dies, or a disk that fails, at any call by which a checkpoint or a result is written loses nothing."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aligner.errors import StorageError
from aligner.models.load import LoadedModel, save_model
from aligner.pipeline import run_stage
from aligner.recipe.stage import StageRecipe
from aligner.run.checkpoint import load_newest, save_checkpoint
from aligner.run.folder import RunFolder
from aligner.run.manifest import sha256_tree
from aligner.run.write import mend_leftovers
from aligner.stages.stage import new_model
from tests.reliability.crash import DIED, LIVED, Blow, counted, dying_at, failing_at, in_child
from tests.reliability.worlds import STAGES, STEPS, moved
from tests.run.fake import sft_recipe
from tests.tiny import tiny_model, tiny_tokenizer

ONCE, FOR_EVER = False, True
FAULTS = [(errno.ENOSPC, FOR_EVER), (errno.EIO, ONCE)]
FAULTS += [  # the others by the same road
    pytest.param(number, ever, marks=pytest.mark.slow)
    for number in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EMFILE)
    for ever in (ONCE, FOR_EVER)
]


def save(folder: Path, step: int) -> None:
    tensors = {"weight.a": torch.full((50,), float(step)), "adam.exp_avg.a": torch.arange(50.0)}
    save_checkpoint(folder, step, tensors, {"step": step}, keep=2)


def prepared(folder: Path) -> Path:
    """Two whole checkpoints: a third one pushes the first out."""
    for step in (1, 2):
        save(folder, step)
    return folder


def litter(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".*") if path.name != ".lock")


def test_a_checkpoint_is_usable_whichever_call_the_process_dies_at(tmp_path: Path) -> None:
    for call in range(1, 200):
        folder = prepared(tmp_path / str(call))

        def job(folder: Path = folder, call: int = call) -> None:
            with counted(dying_at(call)):
                save(folder, 3)

        code = in_child(job)
        mend_leftovers(folder)
        found = load_newest(folder)
        assert found is not None and found.step in ((3,) if code == LIVED else (2, 3)), call
        assert float(found.tensors["weight.a"][0]) == found.step and litter(folder) == []
        save(folder, 4)  # and it goes on from there
        assert {path.name for path in folder.glob("damaged-*")} == set()
        if code == LIVED:
            assert (
                call > 20
            )  # mkdir, tensors, state, seal, fsyncs, rename, removal: each was a place to die at
            return
        assert code == DIED
    pytest.fail("the save never ended")


@pytest.mark.parametrize(("number", "ever"), FAULTS)
def test_a_write_that_fails_is_told_and_costs_nothing(tmp_path: Path, number: int, ever: bool) -> None:
    for call in range(1, 200):
        folder = prepared(tmp_path / str(call))
        blow, failed = failing_at(call, number, ever=ever)
        told: StorageError | None = None
        with counted(blow):
            try:
                save(folder, 3)
            except StorageError as error:
                told = error
        assert litter(folder) == [], call
        found = load_newest(folder)
        assert found is not None and found.step in (2, 3)
        assert found.step == 3 or told is not None
        if not failed():
            assert told is None and call > 12
            return
        if told is not None:
            assert told.exit_code == 3 and "what was saved before is untouched" in str(told)
            assert ("disk is full" in str(told)) == (number in (errno.ENOSPC, errno.EDQUOT))
    pytest.fail("the save never ended")


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The kernel itself refuses to let a file grow beyond this, also under safetensors' own writer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_the_kernel_refusing_to_write_on_is_told(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    largest = (folder / "step-2" / "state.safetensors").stat().st_size
    for size in range(0, largest, 50):
        with pytest.raises(StorageError, match="disk is full"), no_file_above(size):
            save(folder, 3)
        assert litter(folder) == []
        found = load_newest(folder)
        assert found is not None and found.step == 2


def test_a_model_the_kernel_does_not_take_leaves_nothing(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    loaded = LoadedModel(tiny_model(tokenizer), tokenizer, "")
    with RunFolder.open(sft_recipe(tmp_path), recipe_text="") as run:
        for size in (0, 300, 5_000, 100_000):  # too little for a config, for a tokenizer, for the weights
            with (
                pytest.raises(StorageError, match="disk is full"),
                no_file_above(size),
                new_model(run) as folder,
            ):
                save_model(loaded, folder, base_folder=run.base_dir)
            assert litter(tmp_path) == [] and not run.model_dir.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_disk_of_three_mebibytes(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=3m tmpfs '{disk}' 2>/dev/null") != 0:
        pytest.skip("mounting is not allowed here")
    try:
        tensors = {"a": torch.zeros(300_000)}  # 1.2 MB: two fit, a third does not
        for step in (1, 2):
            save_checkpoint(disk, step, tensors, {"step": step})
        with pytest.raises(StorageError, match="disk is full"):
            save_checkpoint(disk, 3, tensors, {"step": 3})
        assert litter(disk) == []
        found = load_newest(disk)
        assert found is not None and found.step == 2
    finally:
        os.system(f"umount -l '{disk}'")  # lazily: what was loaded is mapped from there


FINISHES = [  # an adapter with its scale is all that any of the others writes, but for PPO's critic
    "reward", *(pytest.param(name, marks=pytest.mark.slow) for name in STAGES if name != "reward")
]  # fmt: skip
HOMES = {"dpo": "preference", "kto": "preference", "grpo": "group"}


@pytest.mark.parametrize("stage", FINISHES)
def test_a_result_is_whole_or_resumable_whichever_call_the_process_dies_at(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = STAGES[stage](tmp_path, "run")
    calls = ended_in_many_ways(monkeypatch, recipe, tmp_path, dying_at)
    assert in_child(lambda: run_whole(recipe)) == LIVED
    assert len(list(calls.iterdir())) > 30


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_a_result_that_cannot_be_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    recipe = STAGES["reward"](tmp_path, "run")
    calls = ended_in_many_ways(
        monkeypatch, recipe, tmp_path, lambda call: failing_at(call, number, ever=True)[0]
    )
    assert in_child(lambda: run_whole(recipe)) == LIVED
    ends = {path.name.partition("-")[2] for path in calls.iterdir()}
    assert ends == {str(StorageError.exit_code), str(LIVED)}


def run_whole(recipe: StageRecipe) -> None:
    run_stage(recipe)


def ended_in_many_ways(
    monkeypatch: pytest.MonkeyPatch, recipe: StageRecipe, folder: Path, blow_at: Callable[[int], Blow]
) -> Path:
    """Have the stage split as it begins to save its model: a child goes on from there and meets the first blow, then
    another from the same folder meets the second, until one lives to the end. Each leaves a file "number-exit code" in
    the folder that is returned, and what it left of the run is checked.
    """
    run, start, ends = Path(recipe.output), folder / "start", folder / "ends"
    ends.mkdir()

    def split(open_run: RunFolder) -> object:
        shutil.copytree(run, start)
        for call in range(1, 400):
            child = os.fork()
            if child == 0:
                ARMED.enter_context(counted(blow_at(call)))
                return new_model(open_run)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            (ends / f"{call}-{code}").touch()
            assert_usable(recipe, run, folder / "look", finished=code == LIVED)
            if code == LIVED:
                os._exit(LIVED)
            shutil.rmtree(run)
            shutil.copytree(start, run)
        raise AssertionError("the stage never ended")

    home = HOMES.get(recipe.stage, recipe.stage)
    monkeypatch.setattr(f"aligner.stages.{home}.new_model", split)
    return ends


ARMED = ExitStack()  # never left: who arms it ends by it


def assert_usable(recipe: StageRecipe, run: Path, look: Path, *, finished: bool) -> None:
    """What lies there is a finished run whose every weight is as noted, or one that goes on from its last step."""
    shutil.copytree(run, look)
    with RunFolder.open(moved(recipe, look), recipe_text="") as found:
        assert litter(look) == []
        assert found.finished or not finished
        if found.finished:
            assert sha256_tree(found.model_dir) == found.manifest.artifacts != {}
        else:
            newest = load_newest(found.checkpoints)
            assert newest is not None and newest.step == STEPS
        for path in found.model_dir.rglob("*.safetensors"):
            assert load_file(path)
    shutil.rmtree(look)
