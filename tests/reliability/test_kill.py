"""kill -9 at random moments of real processes: what is there in the end is what is there without a kill."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from aligner.pipeline import run_stage
from aligner.recipe.stage import StageRecipe
from aligner.run.manifest import Manifest
from tests.reliability.crash import LIVED, in_child
from tests.reliability.worlds import STAGES, digests, moved, newest_checkpoint_digests

STAGES_KILLED = ["sft-packed-lora", "ppo"]
STAGES_KILLED += [
    pytest.param(name, marks=pytest.mark.slow) for name in ("pretrain", "sft", "reward", "dpo", "kto", "grpo")
]


@pytest.mark.parametrize("stage", STAGES_KILLED)
def test_a_run_killed_at_random_ends_as_it_would_have(
    stage: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    wanted = request.config.getoption("--kills", default=None) or 2
    chooser = random.Random(f"{stage} {wanted}")
    straight = STAGES[stage](tmp_path, "straight")
    began = time.monotonic()
    assert in_child(lambda: run_one(straight)) == LIVED
    seconds = time.monotonic() - began
    expected = digests(tmp_path / "straight"), newest_checkpoint_digests(tmp_path / "straight")
    killed, number = 0, 0
    while killed < wanted:
        number += 1
        recipe = moved(straight, tmp_path / f"run{number}")
        killed += killed_until_finished(recipe, chooser, seconds, at_most=wanted - killed)
        run = Path(recipe.output)
        assert (digests(run), newest_checkpoint_digests(run)) == expected, f"{stage}, run {number}"


def run_one(recipe: StageRecipe) -> None:
    run_stage(recipe)


def killed_until_finished(
    recipe: StageRecipe, chooser: random.Random, seconds: float, *, at_most: int
) -> int:
    """Start the run again and again, and kill it; how many kills it took before it was finished."""
    kills = 0
    while kills < at_most:
        child = os.fork()
        if child == 0:
            run_and_exit(recipe)
        time.sleep(chooser.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)  # a zombie takes it, too
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == LIVED:
            break
        kills += 1
    assert in_child(lambda: run_one(recipe)) == LIVED
    assert Manifest.read(Path(recipe.output)).status == "finished"
    return kills


def run_and_exit(recipe: StageRecipe) -> None:
    """The child's whole life."""
    try:
        run_stage(recipe)
        os._exit(0)
    finally:
        os._exit(1)
