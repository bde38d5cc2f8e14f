"""Ctrl-C and SIGTERM to a real process, once and twice, in a step and in the middle of a save: it ends with 130, what it
leaves is whole, and the same command goes on to the very same bits."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aligner.stages.ppo
from aligner.cli import main
from aligner.pipeline import run_stage
from aligner.recipe.load import complete_yaml
from aligner.recipe.stage import StageRecipe
from aligner.run.checkpoint import load_newest
from aligner.run.manifest import Manifest
from aligner.run.write import mend_leftovers
from aligner.stages.loop import StageTrainer
from tests.reliability.crash import LIVED, counted, in_child
from tests.reliability.test_crash import litter
from tests.reliability.worlds import STAGES, STEPS, digests, moved, newest_checkpoint_digests

INTERRUPTED = 130
AT_STEP = 2  # the one that is being made, from 1
Straight = tuple[StageRecipe, Any]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Straight]:
    """A stage's recipe, and what a run of it ends with that nobody disturbs."""
    found: dict[str, Straight] = {}

    def run(stage: str) -> Straight:
        if stage not in found:
            folder = tmp_path_factory.mktemp(stage)
            recipe = STAGES[stage](folder, "straight")
            assert in_child(lambda: undisturbed(recipe)) == LIVED
            found[stage] = recipe, what_is_left(folder / "straight")
        return found[stage]

    return run


def undisturbed(recipe: StageRecipe) -> None:
    run_stage(recipe)


def what_is_left(run: Path) -> Any:
    return digests(run), newest_checkpoint_digests(run)


def by_command(recipe: StageRecipe) -> None:
    """`aligner run`, with its exit code."""
    file = Path(recipe.output).with_suffix(".yaml")
    file.write_text(complete_yaml(recipe), encoding="utf-8")
    sys.argv = ["aligner", "run", str(file)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job begins with Ctrl-C ignored
    try:
        main()
    except SystemExit as end:
        os._exit(int(end.code or 0))


def told(signals: list[int]) -> None:
    for number in signals:
        os.kill(os.getpid(), number)


def in_a_step(signals: list[int]) -> None:
    """The signals come while the second step is made; for a child, which does not come back."""
    real, learn = aligner.stages.ppo.train_step, StageTrainer.training_step

    def step(job: Any, at: int) -> Any:
        if at + 1 == AT_STEP:
            told(signals)
        return real(job, at)

    def learning(trainer: StageTrainer, *args: Any) -> Any:
        if trainer.state.global_step + 1 == AT_STEP:
            told(signals)
            signals.clear()  # a step has several passes
        return learn(trainer, *args)

    aligner.stages.ppo.train_step = step
    StageTrainer.training_step = learning  # type: ignore[method-assign]


def at_call(call: int, signals: list[int]) -> Callable[[str], None]:
    """The signals come at the `call`-th call that changes the disk, counted from the first tensors that are written."""
    count = 0

    def blow(name: str) -> None:
        nonlocal count
        count += bool(count or name == "safetensors")
        if count == call:
            told(signals)

    return blow


def stopped(recipe: StageRecipe, job: Callable[[], None]) -> int:
    """Exit code of a run that is disturbed; what it leaves is whole."""
    code, run = in_child(job), Path(recipe.output)
    mend_leftovers(run)
    mend_leftovers(run / "checkpoints")
    assert litter(run) == []
    assert list((run / "checkpoints").glob("damaged-*")) == []
    return code


INT, TERM = int(signal.SIGINT), int(signal.SIGTERM)
SIGNALS = [[INT], [TERM], [INT, INT], [TERM, TERM], [INT, TERM]]
NAMES = ["Ctrl-C", "SIGTERM", "Ctrl-C twice", "SIGTERM twice", "both"]
CASES = [
    pytest.param(stage, signals, id=f"{stage} {name}", marks=[] if (stage, name) in {
        ("sft-packed-lora", "SIGTERM twice"), ("ppo", "Ctrl-C twice")
    } else pytest.mark.slow)
    for stage in ("sft-packed-lora", "ppo") for signals, name in zip(SIGNALS, NAMES, strict=True)
]  # fmt: skip


@pytest.mark.parametrize(("stage", "signals"), CASES)
def test_a_signal_in_a_step(
    stage: str, signals: list[int], tmp_path: Path, straight: Callable[[str], Straight]
) -> None:
    recipe, expected = straight(stage)
    recipe = moved(recipe, tmp_path / "run")

    def job() -> None:
        in_a_step(list(signals))
        by_command(recipe)

    assert stopped(recipe, job) == INTERRUPTED
    assert Manifest.read(tmp_path / "run").status == "interrupted"
    found = load_newest(tmp_path / "run" / "checkpoints")
    wanted = AT_STEP if len(signals) == 1 else AT_STEP - 1  # one lets the step be finished, and saves
    assert found is not None and found.step == wanted
    assert in_child(lambda: by_command(recipe)) == LIVED
    assert what_is_left(tmp_path / "run") == expected


@pytest.mark.parametrize(("stage", "signals"), CASES)
def test_a_signal_in_a_save(
    stage: str, signals: list[int], tmp_path: Path, straight: Callable[[str], Straight]
) -> None:
    recipe, expected = straight(stage)
    recipe = moved(recipe, tmp_path / "run")

    def job() -> None:
        with counted(at_call(2, list(signals))):  # half of the tensors are written
            by_command(recipe)

    assert stopped(recipe, job) == INTERRUPTED
    assert Manifest.read(tmp_path / "run").status == "interrupted"
    found = load_newest(tmp_path / "run" / "checkpoints")
    # The save goes on after one signal, and so does the step after it, which is asked next; two end the save.
    assert (found.step if found else 0) == (2 if len(signals) == 1 else 0)
    assert in_child(lambda: by_command(recipe)) == LIVED
    assert what_is_left(tmp_path / "run") == expected


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["reward", "grpo"])
def test_two_signals_at_any_call(stage: str, tmp_path: Path, straight: Callable[[str], Straight]) -> None:
    """From the first save to the last word of the finish, every seventh call."""
    recipe, expected = straight(stage)
    codes = []
    for call in range(1, 400, 7):
        asked = moved(recipe, tmp_path / f"run{call}")

        def job(asked: StageRecipe = asked, call: int = call) -> None:
            with counted(at_call(call, [TERM, TERM])):
                by_command(asked)

        codes.append(stopped(asked, job))
        assert in_child(lambda asked=asked: by_command(asked)) == LIVED
        assert what_is_left(tmp_path / f"run{call}") == expected, call
        if codes[-1] == LIVED:
            assert len(codes) > STEPS and set(codes[:-1]) == {INTERRUPTED}
            return
    pytest.fail("the run never ended")
