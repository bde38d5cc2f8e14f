"""The plot of FLAN's experiment: what it is drawn from, and what is said where that is not there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from aligner.planning import planned_stages
from aligner.recipe.evaluate import EvaluateRecipe
from aligner.recipe.stages import SftRecipe
from scripts.flan_families import ARMS, COUNTS, MEASURES, UNSEEN, main, model_of

RECIPE = Path(__file__).parents[2] / "recipes/flan-families.yaml"
MODELS = {model_of(arm, count) for arm in ARMS for count in COUNTS}


def write_run(folder: Path, *, without: str = "") -> str:
    """A finished run: families of a model at .1, .2, ... .5 (mean .3), the base at none."""
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"stage": "pipeline", "recipe": {}}))
    results = {
        f"{model}/{measure}[items.{family}]": 0.0 if model == "base" else number / 10 * scale
        for model in MODELS
        for measure, scale in zip(MEASURES, (1, 10), strict=True)
        for number, family in enumerate(UNSEEN, start=1)
        if model != without
    }
    (folder / "results.json").write_text(json.dumps(results))
    return str(folder)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["flan_families.py", *arguments])
    main()


def test_the_table_begins_with_the_base_which_both_arms_share(tmp_path, monkeypatch, capsys):
    runs = [write_run(tmp_path / name) for name in ("one", "two")]
    call(monkeypatch, *runs, "--out", str(tmp_path / "plot.png"))
    lines = capsys.readouterr().out.splitlines()
    nothing, third, three = "0.000 ± 0.000", "0.300 ± 0.000", "3.000 ± 0.000"
    assert lines[2] == f"| 0 | {nothing} | {nothing} | {nothing} | {nothing} |"
    assert lines[3] == f"| 1 | {third} | {third} | {three} | {three} |"
    assert len(lines) == 2 + len(COUNTS) + 1 and (tmp_path / "plot.png").stat().st_size > 0


def test_runs_that_are_missing_or_measured_something_else_are_told_at_once(tmp_path, monkeypatch, capsys):
    whole, lacking = write_run(tmp_path / "whole"), write_run(tmp_path / "lacking", without="base")
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, whole, lacking, str(tmp_path / "none"))
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert f"{lacking}: results.json has no base/exact_match_share[items.extract], and 9 more" in told
    assert f"{tmp_path / 'none'}: not a run folder" in told and str(whole) not in told


def test_the_recipe_asks_all_models_what_none_was_tuned_on():
    stages = {stage.name: stage.recipe for stage in planned_stages(RECIPE)}
    asked = stages["evaluate"]
    assert isinstance(asked, EvaluateRecipe) and asked.models == {name: f"@{name}" for name in asked.models}
    assert set(asked.models) == MODELS and asked.suites.answer_nats
    for name in MODELS - {"base"}:
        tuned = stages[name]
        assert isinstance(tuned, SftRecipe)
        (source,) = tuned.data.train
        assert not {Path(path).stem for path in source.path} & set(UNSEEN)
