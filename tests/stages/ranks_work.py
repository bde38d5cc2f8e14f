"""What tests of whole stages on two processes have each of them do."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aligner.stages.ppo
from aligner import pipeline
from aligner.errors import AlignerError
from aligner.recipe.stage import StageRecipe
from aligner.rl.ranks import ranks_of_launch
from aligner.stages.loop import StageTrainer


def run_on_ranks(plan: StageRecipe, stop_at: int | None = None) -> tuple[str, dict[str, float]]:
    """Run a stage as the command does; Ctrl-C comes to the second process alone, in step `stop_at`."""
    with _interrupted(stop_at):
        try:
            if ranks_of_launch().rank > 0:
                pipeline.follow()
                return "", {}
            results = pipeline.run_stage(plan).results
            pipeline._call_others(None)
            return "", dict(results)
        except AlignerError as error:
            return f"{type(error).__name__}: {error}", {}


def run_pipeline_on_ranks(folder: Path) -> str:
    """Run all.yaml of a folder as the command does; how it ended, "" on the second process."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        if ranks_of_launch().rank > 0:
            pipeline.follow()
            return ""
        return pipeline.run_recipe(Path("all.yaml")).status
    finally:
        os.chdir(before)


@contextmanager
def _interrupted(stop_at: int | None) -> Iterator[None]:
    real = aligner.stages.ppo.train_step

    def acting(job: Any, step: int) -> dict[str, float]:
        if step == stop_at and job.ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(job, step)

    aligner.stages.ppo.train_step = acting
    learn, told = StageTrainer.training_step, []

    def learning(self: StageTrainer, *batch: Any) -> Any:
        if self.state.global_step == stop_at and self.ranks.rank == 1 and not told:
            told.append(stop_at)
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(self, *batch)

    StageTrainer.training_step = learning  # type: ignore[method-assign]
    try:
        yield
    finally:
        aligner.stages.ppo.train_step = real
        StageTrainer.training_step = learn  # type: ignore[method-assign]


def follow_and_die() -> None:
    """What a process beside the first does that is killed in its third step."""
    learn = StageTrainer.training_step

    def dying(self: StageTrainer, *batch: Any) -> Any:
        if self.state.global_step == 2:
            os._exit(9)
        return learn(self, *batch)

    StageTrainer.training_step = dying  # type: ignore[method-assign]
    pipeline.follow()
