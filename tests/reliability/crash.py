"""Every call by which this process changes the disk, counted; at the k-th the process dies, or the call fails.

Counted: opening for writing, each write, fsync, rename, unlink, mkdir, rmdir, truncate, and safetensors' writer, which
is three calls (before, half of the file, all of it). A write that dies or fails leaves half of its bytes.
"""

from __future__ import annotations

import builtins
import io
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
import safetensors.torch

from aligner.errors import AlignerError

Blow = Callable[[str], None]  # told the call's name; may raise, or not come back
WRITES = {"open", "write", "fsync", "rename", "mkdir", "truncate", "safetensors"}
_OS = {
    "fsync": "fsync", "replace": "rename", "rename": "rename", "mkdir": "mkdir", "ftruncate": "truncate",
    "unlink": "unlink", "remove": "unlink", "rmdir": "unlink",
}  # fmt: skip
LIVED, DIED, RAISED = 0, 9, 1


class _File:
    """An open file whose writes are counted."""

    def __init__(self, file: Any, blow: Blow) -> None:
        self._file, self._blow = file, blow

    def write(self, content: Any) -> int:
        half = content[: len(content) // 2]
        try:
            self._blow("write")
        except OSError:
            self._file.write(half)
            raise
        return int(self._file.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextmanager
def counted(blow: Blow) -> Iterator[None]:
    """Within, `blow` is called before each call that changes the disk."""
    real_open, real_tensors = io.open, safetensors.torch.serialize_file

    def opened(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if not set(mode) & set("wax+"):
            return real_open(file, mode, *args, **more)
        blow("open")
        return _File(real_open(file, mode, *args, **more), blow)

    def tensors(values: Any, filename: Any, metadata: Any = None) -> None:
        blow("safetensors")
        real_tensors(values, filename, metadata)
        whole = Path(filename).read_bytes()
        Path(filename).unlink()
        real_open(filename, "wb").write(whole[: len(whole) // 2])
        blow("safetensors")
        real_open(filename, "wb").write(whole)
        blow("safetensors")

    def wrapped(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            blow(name)
            return real(*args, **more)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name, kind in _OS.items():
            patch.setattr(os, name, wrapped(getattr(os, name), kind))
        patch.setattr(io, "open", opened)
        patch.setattr(builtins, "open", opened)
        patch.setattr(safetensors.torch, "serialize_file", tensors)
        yield


def dying_at(call: int) -> Blow:
    """Like kill -9 at the `call`-th call."""
    count = 0

    def blow(_: str) -> None:
        nonlocal count
        count += 1
        if count == call:
            os._exit(DIED)

    return blow


def failing_at(call: int, number: int, *, ever: bool = False) -> tuple[Blow, Callable[[], bool]]:
    """The `call`-th writing call fails with this errno (`ever`: those after it, too); and whether one has failed."""
    count = 0

    def blow(name: str) -> None:
        nonlocal count
        if name not in WRITES:
            return
        count += 1
        if count == call or (ever and count > call):
            _fail(name, number)

    return blow, lambda: count >= call


def _fail(name: str, number: int) -> NoReturn:
    message = os.strerror(number)
    if name == "safetensors":
        raise safetensors.SafetensorError(f"I/O error: {message} (os error {number})")
    raise OSError(number, message)


def in_child(job: Callable[[], None]) -> int:
    """Run `job` in a forked child: LIVED, DIED, an AlignerError's exit code, or RAISED."""
    child = os.fork()
    if child == 0:
        try:
            job()
        except AlignerError as error:
            os._exit(error.exit_code)
        except BaseException:
            traceback.print_exc()
            os._exit(RAISED)
        os._exit(LIVED)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
