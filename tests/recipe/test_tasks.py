"""What a recipe may say of a source of tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner.errors import RecipeError
from aligner.recipe.data import SourceSpec
from aligner.recipe.load import complete_yaml, load_recipe

TEXT = """\
stage: {stage}
model: {{base: you/base}}
data:
  train:
    - {source}
train: {{epochs: 1}}
output: runs/x
"""


def load(tmp_path: Path, source: str, stage: str = "sft") -> SourceSpec:
    for name in ("rows.jsonl", "task.yaml"):
        (tmp_path / name).write_text("{}\n")
    (tmp_path / "r.yaml").write_text(TEXT.format(stage=stage, source=source))
    loaded = load_recipe(tmp_path / "r.yaml")
    (tmp_path / "again.yaml").write_text(complete_yaml(loaded.recipe))
    assert load_recipe(tmp_path / "again.yaml").recipe == loaded.recipe
    (found,) = loaded.recipe.data.train  # type: ignore[attr-defined]
    assert isinstance(found, SourceSpec)
    return found


def test_a_source_of_tasks(tmp_path: Path) -> None:
    source = load(
        tmp_path,
        "{path: task.yaml, format: tasks, cap: 9, shots: [0, 2], rationale: 0.1, templates: original}",
    )
    assert (source.shot_range, source.rationale, source.templates) == ((0, 2), 0.1, "original")
    assert load(tmp_path, "{path: task.yaml, shots: 3}").shot_range == (3, 3)
    assert load(tmp_path, "{path: rows.jsonl, format: messages}").shot_range == (0, 0)


@pytest.mark.parametrize(
    ("source", "what", "remedy"),
    [
        ("{path: rows.jsonl, format: messages, shots: 2}", "shots: for format tasks alone, not messages", ""),
        ("{path: rows.jsonl, format: messages, rationale: 0.5}", "rationale: for format tasks alone", ""),
        ("{path: rows.jsonl, format: messages, templates: none}", "templates: for format tasks alone", ""),
        ("{path: task.yaml, format: tasks, shots: [2, 1]}", "shots = [2, 1]: give a number, or [fewest, most]", ""),
        ("{path: task.yaml, format: tasks, shots: [1]}", "shots = [1]: give a number, or [fewest, most]", ""),
        ("{path: task.yaml, format: tasks, shots: []}", "shots = []: give a number, or [fewest, most]", ""),
        ("{path: task.yaml, format: tasks, shots: -1}", "shots = -1: there are none below 0", ""),
        ("{path: task.yaml, format: tasks, rationale: 1.5}", "data.train.0.rationale = 1.5 is out of range", "at most 1"),
        ("{path: task.yaml, format: tasks, templates: orignal}", 'templates = "orignal"', 'did you mean "original"?'),
        ("{path: task.yaml, format: task}", 'format = "task"', 'did you mean "tasks"?'),
    ],
)  # fmt: skip
def test_what_a_source_of_tasks_may_not_say(tmp_path: Path, source: str, what: str, remedy: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, source)
    (problem,) = caught.value.problems
    assert what in problem.what and remedy in problem.remedy
    assert problem.where.startswith(f"{tmp_path}/r.yaml:5:")


def test_tasks_are_for_instruction_tuning(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match='"tasks": these rows do not fit here'):
        load(tmp_path, "{path: task.yaml, format: tasks}", stage="reward")
