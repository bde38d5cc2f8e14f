"""What a checkpoint of a Trainer's stage holds, and how it is put back; nothing of transformers' own, which pickles.

The rows are a function of (recipe, step), so the position in the data is the step.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import TrainerCallback

from aligner.errors import ModelError, Problem, StorageError
from aligner.rl.state import restore, restore_weights, training_state
from aligner.run.checkpoint import KEPT, Checkpoint
from aligner.run.folder import RunFolder
from aligner.run.seed import set_rng_state

if TYPE_CHECKING:
    from aligner.stages.loop import StageTrainer

COPIES = 3  # of what is trained in a checkpoint: the weights and two moments


def state_of(trainer: StageTrainer, run: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and JSON from which `GoOn` goes on bit by bit; ModelError where each device has only a part of them.

    Beside what decides the steps to come: the rows that have been logged, and what has been added up since the last.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        what = "sharded weights have no checkpoints here"
        raise ModelError(
            Problem("train.checkpoint_every", what, "train on whole copies (DDP), or leave it out")
        )
    tensors, state = training_state(trained(trainer), trainer.optimizer)
    told = {
        "sums": dict(trainer.plan.sums),
        "loss": float(trainer._tr_loss),
        "step": trainer._globalstep_last_logged,
    }
    rows = {"metrics": len(run.metrics.rows()), "samples": len(run.samples.rows())}
    return tensors, state | {"schedule": trainer.lr_scheduler.state_dict(), "since_told": told, "rows": rows}


def trained(trainer: StageTrainer) -> dict[str, nn.Parameter]:
    """The weights that learn, by name."""
    return {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}


def cut_back(run: RunFolder, found: Checkpoint | None) -> None:
    """Drop what a dead session logged after its checkpoint, or all it logged where it has none."""
    rows = found.state["rows"] if found else {"metrics": 0, "samples": 0}
    run.metrics.keep_first(rows["metrics"])
    run.samples.keep_first(rows["samples"])


def check_room(trainer: StageTrainer, run: RunFolder) -> None:
    """StorageError where the disk has no room for the checkpoints kept, one being written, and the model."""
    learnt = sum(weight.nbytes for weight in trained(trainer).values())
    checkpoints = KEPT + 1 if trainer.args.save_strategy == "steps" else 1  # at an interrupt
    needed = learnt + checkpoints * COPIES * learnt
    there = sum(path.stat().st_size for path in run.checkpoints.glob("step-*/*"))
    free = shutil.disk_usage(run.path).free
    if free + there < needed:
        what = (
            f"{needed / 2**20:.0f} MiB are needed for checkpoints and model; {free / 2**20:.0f} MiB are free"
        )
        remedy = "make room, name another output, or leave train.checkpoint_every out"
        raise StorageError(Problem(str(run.path), what, remedy))


class GoOn(TrainerCallback):
    """Puts a checkpoint back once transformers has made optimiser and schedule, before the first step."""

    def __init__(self, trainer: StageTrainer, found: Checkpoint) -> None:
        self.trainer, self.found = trainer, found

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Weights, moments, schedule, and what has been added up since the last line of metrics."""
        trainer, saved = self.trainer, self.found.state
        restore(trained(trainer), trainer.optimizer, self.found.tensors, saved)
        trainer.lr_scheduler.load_state_dict(saved["schedule"])
        for group, rate in zip(trainer.optimizer.param_groups, saved["schedule"]["_last_lr"], strict=True):
            group["lr"] = rate
        state.global_step = self.found.step
        trainer.plan.sums.update(saved["since_told"]["sums"])
        trainer._tr_loss.fill_(saved["since_told"]["loss"])
        trainer._globalstep_last_logged = saved["since_told"]["step"]
        drawn = {name: tensor for name, tensor in self.found.tensors.items() if name.startswith("rng.")}
        self.found = self.found._replace(tensors=drawn)  # the rest is in place, and large

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The generators come last: making the first batches has drawn from them."""
        if state.global_step == self.found.step:
            set_rng_state(self.found.tensors, self.found.state["random"])

    def after_the_last_step(self) -> None:
        """The weights, where only measuring and saving are left to do."""
        restore_weights(trained(self.trainer), self.found.tensors)
        set_rng_state(self.found.tensors, self.found.state["random"])
        self.trainer.state.global_step = self.found.step
