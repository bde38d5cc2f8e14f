"""Finished parts are kept for what they were measured on, and never a number that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner.errors import TrainingError
from aligner.run.parts import Parts


def test_a_part_is_measured_once_for_what_it_was_measured_on(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, float]:
        calls.append(1)
        return {"a/b": 0.5}

    for on, count in (("x", 1), ("x", 1), ("y", 2)):
        parts = Parts(tmp_path / "checkpoints", measured_on={"model": on})
        assert parts.result("sft/pairs", measure) == {"a/b": 0.5}
        assert len(calls) == count and len(parts) == 1


def test_a_number_that_is_none_is_told_and_not_kept(tmp_path: Path) -> None:
    parts = Parts(tmp_path, measured_on={})
    with pytest.raises(TrainingError, match="a/b is nan"):
        parts.result("sft/documents", lambda: {"a/b": float("nan")})
    assert len(parts) == 0
