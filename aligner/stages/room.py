"""Whether disk and memory have room for what a run is going to write and hold: asked before its first step."""

from __future__ import annotations

import shutil

from aligner.errors import ModelError, Problem, StorageError
from aligner.run.checkpoint import KEPT
from aligner.run.folder import RunFolder
from aligner.run.machine import room_to_train
from aligner.run.progress import say

COPIES = 3  # of what is trained in a checkpoint: the weights and two moments
LEAST = 2  # of it beside the weights: a gradient, and one moment


def check_disk(run: RunFolder, *, model: int, checkpoint: int, every: int | None) -> None:
    """StorageError where there is no room for the checkpoints kept, one being written, and the model: bytes of each.

    every: steps between two checkpoints; None: there is one at an interrupt at most.
    """
    needed = model + (KEPT + 1 if every else 1) * checkpoint
    there = sum(path.stat().st_size for path in run.checkpoints.glob("step-*/*"))
    free = shutil.disk_usage(run.path).free
    if free + there < needed:
        what = (
            f"{needed / 2**20:.0f} MiB are needed for checkpoints and model; {free / 2**20:.0f} MiB are free"
        )
        remedy = "make room, name another output" + (", or leave checkpoint_every out" if every else "")
        raise StorageError(Problem(str(run.path), what, remedy))


def check_memory(run: RunFolder, learnt: int) -> None:
    """ModelError where no smaller batch would help, a word where what is free now may not be enough.

    `learnt` bytes of weights, which are there already, need as many for their gradients, and for each moment.
    """
    room, needed = room_to_train(), LEAST * learnt
    what = f"training takes {needed / 2**30:.2f} GiB beside the weights, whatever the batch"
    if needed > room.whole:
        remedy = "train an adapter (model.lora), or start from a smaller model"
        raise ModelError(
            Problem(str(run.path), f"{what}; {room.of} has {room.whole / 2**30:.2f} GiB", remedy)
        )
    if needed > room.free:
        say(f"{run.path}: {what}, and {room.free / 2**30:.2f} GiB are free")
