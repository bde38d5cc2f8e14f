"""Which of the Trainer's checkpoints can be trusted: those whose seal, written last, still fits their files."""

from __future__ import annotations

import json
import os
from pathlib import Path

from aligner.run.progress import say
from aligner.run.write import write_json

SEAL = "COMPLETE.json"


def seal_checkpoint(folder: Path) -> None:
    """Mark a checkpoint as whole: its files reach the disk first, then the list of their sizes."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SEAL]
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    write_json(folder / SEAL, {str(path.relative_to(folder)): path.stat().st_size for path in files})


def break_seal(folder: Path) -> None:
    """Before a checkpoint of the same step is written over: it is not whole until it is sealed again."""
    (folder / SEAL).unlink(missing_ok=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint with the most steps, or none; damaged ones are passed over with a word."""
    found = sorted(folder.glob("checkpoint-*"), key=checkpoint_step, reverse=True)
    for checkpoint in found:
        if _is_whole(checkpoint):
            return checkpoint
        say(f"{checkpoint}: not a whole checkpoint, passed over")
    return None


def checkpoint_step(checkpoint: Path) -> int:
    """Optimiser steps done when it was saved."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def _is_whole(checkpoint: Path) -> bool:
    seal = checkpoint / SEAL
    if not seal.is_file():
        return False
    sizes: dict[str, int] = json.loads(seal.read_text(encoding="utf-8"))
    return all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == n for name, n in sizes.items()
    )
