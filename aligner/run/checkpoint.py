"""Checkpoints that are whole and true, or not there: safetensors and JSON, sealed with sizes and SHA-256.

safetensors itself has no checksum (a flipped bit loads as another number), so a seal lies beside it. There is no
pointer to the newest one that could lie: the newest folder whose seal holds is it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aligner.errors import Problem, RunError
from aligner.run.manifest import sha256_file
from aligner.run.progress import say
from aligner.run.write import fsync_tree, json_text, remove_path, write_folder, write_json

if TYPE_CHECKING:
    from torch import Tensor

SEAL = "MANIFEST.json"
FORMAT = 1
KEPT = 2


class Checkpoint(NamedTuple):
    """What decides the steps after `step`: `tensors` on the CPU by name, `state` as JSON gave it back."""

    step: int
    tensors: dict[str, Tensor]
    state: Any


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, keep: int = KEPT
) -> Path:
    """Write `folder/step-N`, durable when this returns; then remove all but the newest `keep`.

    Tensors are copied to the CPU, so names may share memory. ValueError when `state` is no JSON or not finite.
    """
    from safetensors.torch import save_file

    path = folder / f"step-{step}"
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    with write_folder(path) as scratch:
        save_file(copies, scratch / "state.safetensors")
        write_json(scratch / "state.json", state)
        _seal(scratch, step)
    for old in _newest_first(folder)[keep:]:
        remove_path(old)
    return path


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint, or None; see `newest_checkpoint`."""
    path = newest_checkpoint(folder)
    return load_checkpoint(path) if path else None


def load_checkpoint(path: Path) -> Checkpoint:
    """What is in a folder that `newest_checkpoint` gave."""
    from safetensors.torch import load_file

    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return Checkpoint(_step_of(path), load_file(path / "state.safetensors"), state)


def newest_checkpoint(folder: Path) -> Path | None:
    """Folder of the newest undamaged checkpoint. Damaged ones are told, renamed to `damaged-...` and passed over.

    RunError where there are only those of an old version, whose files are pickled: they are never read.
    """
    for path in _newest_first(folder):
        fault = damage(path)
        if not fault:
            return path
        _set_aside(path, fault)
    if pickled := sorted(folder.glob("checkpoint-*")):
        what = "a checkpoint of an older version, whose files are pickled; such files are never read"
        remedy = "finish the run with that version, or throw it away with --fresh"
        raise RunError(Problem(str(pickled[-1]), what, remedy))
    return None


def last_step(folder: Path) -> int:
    """Step of the newest checkpoint by its name alone, whole or not; 0 where there is none."""
    return max(map(_step_of, _newest_first(folder)), default=0)


def _set_aside(path: Path, fault: str) -> None:
    aside = path.with_name(f"damaged-{path.name}")
    while aside.exists():
        aside = aside.with_name(aside.name + "x")
    os.replace(path, aside)
    say(f"{path}: damaged checkpoint ({fault}); kept as {aside.name}, going on from the one before.")


def _seal(folder: Path, step: int) -> None:
    """Write the seal, the last thing in a checkpoint: size and SHA-256 of every file below, all on the disk by then."""
    fsync_tree(folder)
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != SEAL
    }
    write_json(folder / SEAL, {"format": FORMAT, "step": step, "files": files})


def damage(folder: Path) -> str:
    """What is wrong with a sealed folder, "" when every file, the seal too, is byte by byte what was written."""
    try:
        text = (folder / SEAL).read_text(encoding="utf-8")
        seal = json.loads(text)
        if seal["format"] != FORMAT or text != json_text(seal):
            return "its seal has changed, or is of a later version"
        if seal["step"] != _step_of(folder):
            return f"sealed as step {seal['step']}"
        for name, sealed in seal["files"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != sealed["bytes"]:
                return f"{name} is missing or cut"
            if sha256_file(path) != sealed["sha256"]:
                return f"{name} has changed"
    except FileNotFoundError:
        return "no seal: it was never finished"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its seal cannot be read"
    return ""


def _step_of(path: Path) -> int:
    return int(path.name.partition("-")[2])


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step-*") if path.is_dir() and path.name[5:].isdecimal()]
    return sorted(found, key=_step_of, reverse=True)
