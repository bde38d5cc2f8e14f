"""What was read without a fault is not read again; what has changed is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aligner.data import keeping, read_before
from aligner.data.read_before import check_source
from aligner.errors import DataError
from aligner.recipe.data import SourceSpec
from tests.stages.tools import write_jsonl

ROWS = [{"instruction": f"ask {n}", "output": f"say {n}"} for n in range(20)]


@pytest.fixture(autouse=True)
def _few_rows_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "FEWEST_ROWS", 20)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the sources that are read."""
    paths: list[str] = []
    real = read_before.read_source

    def reading(spec, kind):
        paths.append(spec.path)
        return real(spec, kind)

    monkeypatch.setattr(read_before, "read_source", reading)
    return paths


def test_a_source_is_read_once_until_a_byte_changes(tmp_path: Path, readings: list[str]) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    spec = SourceSpec(path=str(path))
    for _ in range(3):
        check_source(spec, "conversation", tmp_path / "kept")
    assert len(readings) == 1
    check_source(spec, "prompt", tmp_path / "kept")  # other rows are made of it
    assert len(readings) == 2
    before, whole = path.stat(), path.read_bytes()
    path.write_bytes(whole[:-2] + b"!\n")  # the last brace, with size and time as they were
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(DataError, match=r"a\.jsonl:20"):
            check_source(spec, "conversation", tmp_path / "kept")
    path.write_bytes(whole)
    check_source(spec, "conversation", tmp_path / "kept")
    assert len(readings) == 4


def test_few_rows_missing_files_and_no_folder_leave_no_mark(tmp_path: Path, readings: list[str]) -> None:
    few = SourceSpec(path=str(write_jsonl(tmp_path / "few.jsonl", ROWS[1:])))
    many = SourceSpec(path=str(write_jsonl(tmp_path / "many.jsonl", ROWS)))
    for _ in range(2):
        check_source(few, "conversation", tmp_path / "kept")
        check_source(many, "conversation", None)
    with pytest.raises(DataError, match="no such data file"):
        check_source(SourceSpec(path=str(tmp_path / "none")), "conversation", tmp_path / "kept")
    assert len(readings) == 5 and not (tmp_path / "kept").exists()


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path, readings: list[str]) -> None:
    spec = SourceSpec(path=str(write_jsonl(tmp_path / "a.jsonl", ROWS)))
    (tmp_path / "kept").write_text("a file")
    for _ in range(2):
        check_source(spec, "conversation", tmp_path / "kept")
    assert len(readings) == 2
