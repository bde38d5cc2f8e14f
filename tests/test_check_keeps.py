"""`aligner check` keeps the rows that it makes, for the run after it and for the next check, and reads a source once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from aligner.check import check_recipe
from aligner.data import assembly, keeping, read_before
from aligner.errors import DataError
from aligner.preflight import check_ahead
from aligner.recipe.load import load_recipe
from tests.stages.tools import save_tiny, write_jsonl
from tests.tiny import tiny_tokenizer

ROWS = [{"prompt": f"ask {n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(24)]


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the sources that are read, for a plan or ahead of a run."""
    paths: list[str] = []
    for room in (assembly, read_before):

        def reading(spec, kind, real=room.read_source):
            paths.append(spec.path)
            return real(spec, kind)

        monkeypatch.setattr(room, "read_source", reading)
    return paths


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(keeping, "FEWEST_ROWS", 20)
    monkeypatch.setenv("ALIGNER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "base", tiny_tokenizer())
    write_jsonl(tmp_path / "pairs.jsonl", ROWS)
    asked = {
        "stage": "reward",
        "model": {"base": "base"},
        "data": {"train": [{"path": "pairs.jsonl"}], "max_length": 64},
        "train": {"steps": 2, "rows_per_step": 4, "learning_rate": 1e-3},
        "output": "runs/rm",
    }
    (tmp_path / "rm.yaml").write_text(yaml.safe_dump(asked))
    return tmp_path / "rm.yaml"


def told(recipe: Path) -> list[object]:
    """The plan, but for what is timed."""
    (stage,) = check_recipe(recipe).stages
    return [stage.tables, *(row for row in stage.rows if row.name != "time")]


def test_a_source_is_read_once_by_all_checks_and_ahead_of_the_run(recipe: Path, readings: list[str]) -> None:
    first = told(recipe)
    assert told(recipe) == first
    check_ahead([load_recipe(recipe).recipe])
    assert len(readings) == 1
    write_jsonl(recipe.parent / "pairs.jsonl", ROWS[:-1])
    assert told(recipe) != first and len(readings) == 2


def test_all_mistakes_are_told_at_once_as_ahead_of_a_run(recipe: Path) -> None:
    names = ["pairs.jsonl", "a.jsonl", "b.jsonl"]
    for name in names[1:]:
        write_jsonl(recipe.parent / name, [ROWS[0], {"prompt": "ask", "chosen": "good", "rejected": 3}])
    asked = yaml.safe_load(recipe.read_text())
    asked["data"]["train"] = [{"path": name} for name in names]
    recipe.write_text(yaml.safe_dump(asked))
    with pytest.raises(DataError) as raised:
        check_recipe(recipe)
    assert [problem.where for problem in raised.value.problems] == ["a.jsonl:2", "b.jsonl:2"]
