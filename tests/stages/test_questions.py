"""What an evaluation asks of a model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from aligner.recipe.data import SourceSpec
from aligner.recipe.evaluate import EvaluateRecipe, SuitesSpec
from aligner.stages.questions import read_questions
from tests.stages.tools import write_jsonl
from tests.tiny import tiny_tokenizer


def test_a_suite_of_pairs_is_taken_as_it_is_with_what_contradicts_itself(tmp_path: Path) -> None:
    good = {"prompt": "Hi", "chosen": "a", "rejected": "b"}
    rows = [good, good, {"prompt": "Hi", "chosen": "b", "rejected": "a"}]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    suites = SuitesSpec(pairs=[SourceSpec(path=str(tmp_path / "pairs.jsonl"))])
    recipe = EvaluateRecipe(stage="evaluate", output="x", models={"one": "x"}, suites=suites)
    subject = SimpleNamespace(tokenizer=tiny_tokenizer(), context=256)
    asked = read_questions(recipe, subject)  # type: ignore[arg-type]
    assert len(asked.pairs) == 3 and {pair.weight for pair in asked.pairs} == {1.0}
    (report,) = asked.data["pairs"]["train"]  # type: ignore[index]
    assert report["noted"] == {"conflicting_pair": 3, "repeated_pair": 1} and report["dropped"] == {}
