"""What a power cut may leave on a disk: of all that was not fsynced, any part may be there and any part not.

A model of a file system, kept beside the real one: a file's contents are safe once it is fsynced, a name once its
folder is. Real disks lose less; a protocol that stands this stands them.
"""

from __future__ import annotations

import io
import itertools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch


@dataclass
class Node:
    """A file (`entries` is None) or a folder: as it is now, and what of it is safe."""

    entries: dict[str, Node] | None = None
    safe_entries: dict[str, Node] = field(default_factory=dict)
    changes: list[dict[str, Node | None]] = field(
        default_factory=list
    )  # of names, not safe yet; each is one step
    content: bytes = b""
    safe_content: bytes | None = None

    @property
    def names(self) -> dict[str, Node]:
        """What lies in the folder now."""
        assert self.entries is not None
        return self.entries

    def change(self, **names: Node | None) -> None:
        """Add, replace or remove (None) names in one step."""
        self.changes.append(names)
        _apply(self.names, names)

    def sync(self) -> None:
        """fsync."""
        if self.entries is None:
            self.safe_content = self.content
        else:
            self.safe_entries, self.changes = dict(self.entries), []


def _apply(entries: dict[str, Node], names: dict[str, Node | None]) -> None:
    for name, node in names.items():
        entries.pop(name, None)
        if node is not None:
            entries[name] = node


def snapshot(path: Path) -> Node:
    """A model of what lies there, all of it safe."""
    if path.is_file():
        content = path.read_bytes()
        return Node(content=content, safe_content=content)
    entries = {child.name: snapshot(child) for child in path.iterdir()}
    return Node(entries, dict(entries))


def images(root: Node, *, at_most: int, chooser: random.Random) -> Iterator[Callable[[Path], None]]:
    """Writers of what may be left: every choice, or so many drawn ones, the two extremes among them."""
    places = list(_doubts(root, set()))
    count = sum(choices for _, choices in places)
    if 2**count <= at_most:
        drawn: list[tuple[bool, ...]] = list(itertools.product((False, True), repeat=count))
    else:
        drawn = [(False,) * count, (True,) * count]
        drawn += [tuple(chooser.random() < 0.5 for _ in range(count)) for _ in range(at_most - 2)]
    for bits in drawn:
        answers, rest = {}, iter(bits)
        for node, choices in places:
            answers[id(node)] = [next(rest) for _ in range(choices)]
        yield lambda path, answers=answers: _write(root, path, answers)


def _doubts(node: Node, seen: set[int]) -> Iterator[tuple[Node, int]]:
    """Nodes of which something is not safe, and how many yes-or-no questions that makes."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if node.entries is None:
        if node.safe_content != node.content:
            yield node, 2  # is anything of it there? is it all?
        return
    if node.changes:
        yield node, len(node.changes)
    changed = [child for names in node.changes for child in names.values() if child is not None]
    for child in (*node.safe_entries.values(), *changed):
        yield from _doubts(child, seen)


def _write(node: Node, path: Path, answers: dict[int, list[bool]]) -> None:
    said = answers.get(id(node), [])
    if node.entries is None:
        content = node.content if not said else node.safe_content or b""
        if said and said[0]:
            half = len(node.content) // 2
            content = node.content if said[1] else node.content[:half] + bytes(len(node.content) - half)
        path.write_bytes(content)
        return
    entries = dict(node.safe_entries)
    for happened, names in zip(said, node.changes, strict=True):
        if happened:
            _apply(entries, names)
    path.mkdir()
    for name, child in entries.items():
        _write(child, path / name, answers)


class _Follower:
    """The calls of `os` and friends, done and then done again in the model."""

    def __init__(self, folder: Path, root: Node, look: Callable[[], None]) -> None:
        self.folder, self.root, self.look = folder, root, look
        self.real = {name: getattr(os, name) for name in ("fsync", "replace", "mkdir", "unlink", "rmdir")}
        self.real_open, self.real_tensors = io.open, safetensors.torch.serialize_file

    def node_at(self, path: Path) -> Node:
        node = self.root
        for part in path.relative_to(self.folder).parts:
            node = node.names[part]
        return node

    def inside(self, path: Any, dir_fd: int | None = None) -> Path | None:
        base = Path(os.readlink(f"/proc/self/fd/{dir_fd}")) if dir_fd is not None else Path()
        whole = base / path
        return whole if whole.is_relative_to(self.folder) and whole != self.folder else None

    def seen(self) -> None:
        self.refresh(self.root, self.folder)
        self.look()

    def refresh(self, node: Node, path: Path) -> None:
        if node.entries is None:
            node.content = path.read_bytes()
        else:
            for name, child in node.entries.items():
                self.refresh(child, path / name)

    def made(self, path: Path, node: Node) -> None:
        if path.name not in self.node_at(path.parent).names:
            self.node_at(path.parent).change(**{path.name: node})
        self.seen()

    def removed(self, path: Path) -> None:
        self.node_at(path.parent).change(**{path.name: None})
        self.seen()

    def fsync(self, descriptor: int) -> None:
        self.real["fsync"](descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_relative_to(self.folder):
            self.seen()
            self.node_at(path).sync()
            self.seen()

    def replace(self, source: Any, target: Any) -> None:
        self.real["replace"](source, target)
        if self.inside(source):
            parent = self.node_at(Path(source).parent)
            moved = parent.names[Path(source).name]
            parent.change(**{Path(source).name: None, Path(target).name: moved})
            self.seen()

    def mkdir(self, path: Any, *args: Any, **more: Any) -> None:
        self.real["mkdir"](path, *args, **more)
        if self.inside(path):
            self.made(Path(path), Node({}))

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        whole = self.inside(path, dir_fd)
        self.real["unlink"](path, dir_fd=dir_fd)
        if whole:
            self.removed(whole)

    def rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        whole = self.inside(path, dir_fd)
        self.real["rmdir"](path, dir_fd=dir_fd)
        if whole:
            self.removed(whole)

    def open(self, file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        handle = self.real_open(file, mode, *args, **more)
        if set(mode) & set("wax") and isinstance(file, str | Path) and self.inside(file):
            self.made(Path(file), Node())
        return handle

    def tensors(self, values: Any, filename: Any, metadata: Any = None) -> None:
        self.real_tensors(values, filename, metadata)
        if self.inside(filename):
            self.made(Path(filename), Node())


@contextmanager
def watched(folder: Path, root: Node, look: Callable[[], None]) -> Iterator[None]:
    """Within, the model follows every call on the real folder, and `look` is called after each."""
    follower = _Follower(folder, root, look)
    with pytest.MonkeyPatch.context() as patch:
        for name in follower.real:
            patch.setattr(os, name, getattr(follower, name))
        patch.setattr(io, "open", follower.open)
        patch.setattr(safetensors.torch, "serialize_file", follower.tensors)
        yield
