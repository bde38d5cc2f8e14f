"""A killed write leaves the old content or the new one, never a mixture."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aligner.errors import RunError
from aligner.run import write

STEPS = ("fsync", "replace", "open", "close", "ftruncate")


def killed_at(call: int, job: Callable[[], None]) -> bool:
    """Run `job` in a child that dies like kill -9 at its `call`-th system call; True when it lived to the end."""
    child = os.fork()
    if child == 0:
        count = 0

        def dying(real: Callable[..., object]) -> Callable[..., object]:
            def step(*arguments: object, **options: object) -> object:
                nonlocal count
                count += 1
                if count == call:
                    os._exit(9)
                return real(*arguments, **options)

            return step

        for name in STEPS:
            setattr(os, name, dying(getattr(os, name)))
        try:
            job()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), code
    return code == 0


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else {}


def put(folder: Path, word: str) -> None:
    with write.write_folder(folder) as scratch:
        (scratch / "a").write_text(word)
        (scratch / "b").write_text(word)


@pytest.mark.parametrize("before", [{}, {"a": "old", "b": "old"}])
def test_a_folder_is_whole_whenever_the_writer_is_killed(tmp_path: Path, before: dict[str, str]) -> None:
    new = {"a": "new", "b": "new"}
    for call in range(1, 60):
        root = tmp_path / str(call)
        if before:
            put(root / "model", "old")
        lived = killed_at(call, lambda root=root: put(root / "model", "new"))
        if root.exists():
            write.mend_leftovers(root)
            assert [path.name for path in root.iterdir()] in ([], ["model"])
        assert contents(root / "model") in ([new] if lived else [before, new])
        if lived:
            assert call > 5  # contents, folder, renames, parent: each was a place to die at
            return
    pytest.fail("the write never ended")


def test_a_file_is_whole_whenever_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    for call in range(1, 20):
        path.write_text("old")
        lived = killed_at(call, lambda: write.write_text(path, "new"))
        assert path.read_text() in (["new"] if lived else ["old", "new"])
        if lived:
            return
    pytest.fail("the write never ended")


def test_contents_are_synced_before_the_rename_and_the_parent_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        calls.append("fsync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.split("-")[-1])
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        calls.append(f"rename {Path(target).name}")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    root = tmp_path / "root"
    root.mkdir()
    put(root / "model", "x")
    assert sorted(calls[:2]) == ["fsync a", "fsync b"]
    assert calls[2:] == ["fsync model", "rename model", "fsync root"]


def test_an_error_in_the_block_leaves_what_was_there(tmp_path: Path) -> None:
    put(tmp_path / "model", "old")
    with pytest.raises(ZeroDivisionError), write.write_folder(tmp_path / "model") as scratch:
        (scratch / "a").write_text("half")
        raise ZeroDivisionError
    assert contents(tmp_path / "model") == {"a": "old", "b": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_is_told_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    write.write_json(path, {"a/b": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"disk is full .* MiB free"):
        write.write_json(path, {"a/b": 2})
    monkeypatch.undo()
    assert path.read_text() == '{\n "a/b": 1\n}\n'
    assert [child.name for child in tmp_path.iterdir()] == ["results.json"]


def test_not_a_number_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_a_torn_last_line_is_cut_off_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    write.append_line(path, "one")
    with path.open("a") as file:
        file.write('{"tor')
    write.append_line(path, "two")
    assert path.read_text() == "one\ntwo\n"
