"""What an evaluation asks of a model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aligner.preview import show_recipe, write_page
from aligner.recipe.data import SourceSpec
from aligner.recipe.evaluate import EvaluateRecipe, SuitesSpec
from aligner.recipe.load import load_recipe
from aligner.stages.questions import read_questions
from tests.stages.tools import save_tiny, write_jsonl
from tests.tiny import tiny_tokenizer


def test_a_suite_of_pairs_is_taken_as_it_is_with_what_contradicts_itself(tmp_path: Path) -> None:
    good = {"prompt": "Hi", "chosen": "a", "rejected": "b"}
    rows = [good, good, {"prompt": "Hi", "chosen": "b", "rejected": "a"}]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    suites = SuitesSpec(pairs=[SourceSpec(path=str(tmp_path / "pairs.jsonl"))])
    recipe = EvaluateRecipe(stage="evaluate", output="x", models={"one": "x"}, suites=suites)
    asked = read_questions(recipe, tiny_tokenizer(), context=256)
    assert len(asked.pairs) == 3 and {pair.weight for pair in asked.pairs} == {1.0}
    (report,) = asked.data["pairs"]["train"]  # type: ignore[index]
    assert report["noted"] == {"conflicting_pair": 3, "repeated_pair": 1} and report["dropped"] == {}


def test_show_has_every_suite_as_the_evaluation_asks_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt is cut to what the context leaves beside the new tokens: 512 - 480."""
    monkeypatch.chdir(tmp_path)
    tokenizer = tiny_tokenizer()
    save_tiny(tmp_path / "base", tokenizer)
    prompts = [
        {"prompt": "red cat " * 60, "gold": {"answer": "a"}},
        {"prompt": "Hi", "gold": {"answer": "b"}},
    ]
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": "Hi", "chosen": "good", "rejected": "bad"}])
    (tmp_path / "text.txt").write_text("The cat is red.")
    source, texts = (
        "[{path: prompts.jsonl, format: prompts}]",
        "[{path: text.txt}]",
    )
    (tmp_path / "e.yaml").write_text(
        f"stage: evaluate\noutput: out\nmodels: {{one: base}}\nsampling: {{max_new_tokens: 480}}\n"
        f"suites:\n  tasks: {{items: {source}}}\n  prompts: {source}\n  examples: {source}\n  shots: [1]\n"
        f"  few_shot: [one]\n  documents: {texts}\n  pairs: [{{path: pairs.jsonl}}]\n"
    )
    recipe = load_recipe(tmp_path / "e.yaml").recipe
    assert isinstance(recipe, EvaluateRecipe)
    asked = read_questions(recipe, tokenizer, context=512)
    show_recipe(tmp_path / "e.yaml", count=2)
    shown = capsys.readouterr().out
    for suite, rows in (
        ("tasks.items", asked.tasks["items"]),
        ("examples", asked.examples),
        ("prompts", asked.prompts),
    ):
        told = re.findall(rf"{suite} \d: .*?, (\d+) tokens", shown)
        assert told == [str(len(row.input_ids)) for row in rows] and max(map(int, told)) == 512 - 480
    assert re.search(r"pairs 1: pair, \d+ and \d+ tokens", shown) and "text.txt:1, " in shown
    assert shown.count("is a control token") == 1
    write_page(tmp_path / "rows.html", tmp_path / "e.yaml", count=2)
    page = (tmp_path / "rows.html").read_text(encoding="utf-8")
    assert [page.count(f": {suite}, ") for suite in ("tasks.items", "examples", "pairs", "prompts")] == [
        2,
        2,
        1,
        2,
    ]
