"""What a checkpoint of a Trainer's stage holds, and how it is put back; nothing of transformers' own, which pickles.

The rows are a function of (recipe, step), so the position in the data is the step.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import TrainerCallback

from aligner.errors import ModelError, Problem, RunError
from aligner.rl.finite import check_weights
from aligner.rl.ranks import Ranks
from aligner.rl.state import (
    MOMENT,
    WEIGHT,
    random_of_ranks,
    restore,
    restore_random,
    restore_weights,
    training_state,
)
from aligner.run.checkpoint import Checkpoint, load_checkpoint, newest_checkpoint
from aligner.run.folder import RunFolder
from aligner.stages.room import COPIES, check_disk, check_memory

if TYPE_CHECKING:
    from aligner.stages.loop import StageTrainer


def state_of(trainer: StageTrainer, run: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and JSON from which `GoOn` goes on bit by bit.

    Beside what decides the steps to come: the rows that have been logged, what has been added up since the last, and
    the losses by which the next ones are judged. TrainingError where a weight is no number.
    """
    check_weights(trained(trainer).values(), "train")
    tensors, state = training_state(trained(trainer), trainer.optimizer)
    since_told = trainer.ranks.together(lambda: _since_told(trainer))
    of_ranks, random = random_of_ranks(trainer.ranks)
    rows = {"metrics": len(run.metrics.rows()), "samples": len(run.samples.rows())}
    schedule = trainer.lr_scheduler.state_dict()
    more = {
        "schedule": schedule,
        "since_told": since_told,
        "rows": rows,
        "losses": asdict(trainer.plan.spikes),
    }
    return tensors | of_ranks, state | random | more


def _since_told(trainer: StageTrainer) -> dict[str, Any]:
    """What one rank has added up since the last line of metrics."""
    return {
        "sums": dict(trainer.plan.sums),
        "loss": float(trainer._tr_loss),
        "step": trainer._globalstep_last_logged,
    }


def _own_share(told: list[dict[str, Any]], ranks: Ranks) -> dict[str, Any]:
    """What this rank goes on from; of another number of them the first has all sums, and all have the mean loss."""
    if len(told) == ranks.count:
        return told[ranks.rank]
    names = {name for one in told for name in one["sums"]} if ranks.rank == 0 else set()
    return {
        "sums": {name: sum(one["sums"].get(name, 0) for one in told) for name in names},
        "loss": sum(one["loss"] for one in told) / len(told),
        "step": told[0]["step"],
    }


def trained(trainer: StageTrainer) -> dict[str, nn.Parameter]:
    """The weights that learn, by name."""
    return {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}


def newest_for_all(ranks: Ranks, folder: Path) -> Checkpoint | None:
    """The newest checkpoint, if there is one; all ranks read the one that the first one found whole."""
    path = ranks.first(lambda: newest_checkpoint(folder))
    return ranks.agree(lambda: _load(path, ranks.rank) if path else None)


def _load(path: Path, rank: int) -> Checkpoint:
    if not path.is_dir():
        fault = f"process {rank} does not see this checkpoint"
        raise RunError(Problem(str(path), fault, "put the output on a disk that all machines share"))
    return load_checkpoint(path)


def check_processes(trainer: StageTrainer) -> None:
    """ModelError where each process has but a part of the weights, or they do not read the same rows in one order."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        what = "FSDP and DeepSpeed give each process a part of the weights; here each holds all of them"
        remedy = "launch plain DDP: torchrun, or accelerate launch --multi_gpu"
        raise ModelError(Problem("processes", what, remedy))
    order = torch.tensor([trainer.args.max_steps, *trainer.plan.order])
    trainer.ranks.check_same([order], "the order of rows")


def cut_back(run: RunFolder, found: Checkpoint | None) -> None:
    """Drop what a dead session logged after its checkpoint, or all it logged where it has none."""
    rows = found.state["rows"] if found else {"metrics": 0, "samples": 0}
    run.metrics.keep_first(rows["metrics"])
    run.samples.keep_first(rows["samples"])
    run.spikes.cut_back(found.step if found else -1)


def check_room(trainer: StageTrainer, run: RunFolder) -> None:
    """StorageError, ModelError where disk or memory have no room for the training to come."""
    learnt = sum(weight.nbytes for weight in trained(trainer).values())
    every = trainer.args.save_steps if trainer.args.save_strategy == "steps" else None
    check_disk(run, model=learnt, checkpoint=COPIES * learnt, every=every)
    check_memory(run, learnt)


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
        own = _own_share(saved["since_told"], trainer.ranks)
        trainer._globalstep_last_logged = own["step"]
        trainer.plan.sums.update(own["sums"])
        trainer._tr_loss.fill_(own["loss"])
        trainer.plan.spikes.go_on(**saved.get("losses", {}))
        drawn = {
            name: tensor
            for name, tensor in self.found.tensors.items()
            if not name.startswith((WEIGHT, MOMENT))
        }
        self.found = self.found._replace(tensors=drawn)  # the rest is in place, and large

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The generators come last: making the first batches has drawn from them."""
        if state.global_step == self.found.step:
            restore_random(self.trainer.ranks, self.found.tensors, self.found.state)

    def after_the_last_step(self) -> None:
        """The weights, where only measuring and saving are left to do."""
        restore_weights(trained(self.trainer), self.found.tensors)
        restore_random(self.trainer.ranks, self.found.tensors, self.found.state)
        self.trainer.state.global_step = self.found.step
