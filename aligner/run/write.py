"""The only code that writes run state: a file or folder is there whole or not at all, kill or power cut.

Order of each write: contents, fsync of the contents, rename, fsync of the parent. A rename without the fsync before it
survives a kill but not a power cut, which may leave the new name over empty blocks.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aligner.errors import Problem, StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BROKEN = (errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.ESTALE)
_SCRATCH = ".tmp-"
_REPLACED = ".del-"


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step; StorageError when the disk does not take it (the old file stays)."""
    scratch = path.with_name(f"{_SCRATCH}{secrets.token_hex(4)}-{path.name}")
    with _removed_on_error(scratch):
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
        _fsync(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """`write_text` of indented JSON; NaN and infinity are a ValueError, for no other reader would take them."""
    write_text(path, json_text(value))


def json_text(value: object) -> str:
    """What `write_json` writes."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def append_line(path: Path, line: str) -> None:
    """Add one line that survives a power cut; a torn last line, left by an earlier one, is cut off first."""
    append_lines(path, [line])


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """`append_line` of several lines with one fsync; StorageError when the disk does not take them."""
    text = "".join(f"{line}\n" for line in lines)
    with faults_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with path.open("ab+") as file:
            _cut_torn_line(path, file.fileno())
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _fsync(path.parent)


@contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """A scratch folder to fill, which becomes `path` when the block ends and vanishes when it raises.

    An older folder at `path` is moved aside first and removed last; a kill between the two renames is mended by
    `mend_leftovers`, which every opening of a run folder calls.
    """
    nonce = secrets.token_hex(4)
    scratch = path.with_name(f"{_SCRATCH}{nonce}-{path.name}")
    replaced = path.with_name(f"{_REPLACED}{nonce}-{path.name}")
    with _removed_on_error(scratch):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir()
        yield scratch
        fsync_tree(scratch)
        _swap_in(scratch, path, replaced)
        _fsync(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def remove_path(path: Path) -> None:
    """Remove a file or folder; a folder leaves its name in one step, so nobody finds half of it.

    What then cannot be unlinked is left to `mend_leftovers`.
    """
    with faults_told(path):
        if path.is_dir() and not path.is_symlink():
            leaving = path.with_name(f"{_SCRATCH}{secrets.token_hex(4)}-{path.name}")
            os.replace(path, leaving)
            shutil.rmtree(leaving, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def mend_leftovers(folder: Path) -> None:
    """Clear what killed writes left in `folder` (not below it); only for the process that holds the folder's lock."""
    for leftover in sorted(folder.glob(f"{_REPLACED}*")):
        original = leftover.with_name(leftover.name.split("-", 2)[2])
        if not original.exists():
            os.replace(leftover, original)
            _fsync(folder)
        else:
            shutil.rmtree(leftover, ignore_errors=True)
    for leftover in folder.glob(f"{_SCRATCH}*"):
        _discard(leftover)


def fsync_tree(folder: Path) -> None:
    """Files first, then the folders that name them, innermost first."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            _fsync(Path(root) / name)
        _fsync(Path(root))


def _swap_in(scratch: Path, path: Path, replaced: Path) -> None:
    if not path.exists():
        os.replace(scratch, path)
        return
    os.replace(path, replaced)
    try:
        os.replace(scratch, path)
    except OSError:
        os.replace(replaced, path)
        raise


def _cut_torn_line(path: Path, descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.ftruncate(descriptor, path.read_bytes().rfind(b"\n") + 1)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _removed_on_error(scratch: Path) -> Iterator[None]:
    """Nothing of ours is left behind by a failed write; what was there before is untouched."""
    try:
        with faults_told(scratch):
            yield
    except BaseException:
        _discard(scratch)
        raise


@contextmanager
def faults_told(path: Path) -> Iterator[None]:
    """StorageError for what the disk is to blame for, also where a writer in Rust says so in words."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else _number_in(str(error))
        if number not in (*_FULL, *_BROKEN) or _elsewhere(error, path.parent):
            raise
        raise StorageError(_fault(path.parent, number)) from error


def _elsewhere(error: Exception, folder: Path) -> bool:
    """Whether the fault is that of a file which is neither in the folder nor above it: one that is read, say."""
    name = getattr(error, "filename", None)
    return isinstance(name, str) and not (
        Path(name).is_relative_to(folder) or folder.is_relative_to(Path(name))
    )


def _number_in(message: str) -> int | None:
    found = re.search(r"\(os error (\d+)\)", message)
    return int(found[1]) if found else None


def _fault(folder: Path, number: int) -> Problem:
    kept = "what was saved before is untouched"
    if number in _FULL:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(there).free / 2**20
        what = f"the disk is full ({free:.0f} MiB free), or a quota or limit is reached; {kept}"
        return Problem(str(folder), what, "make room and start the same command again")
    what = f"cannot be written ({os.strerror(number)}); {kept}"
    return Problem(str(folder), what, "mend the disk or its rights, and start the same command again")
