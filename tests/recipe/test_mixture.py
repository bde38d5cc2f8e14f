"""What a mixture, its sources, a hold-out and a decontamination may say together."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner.errors import RecipeError
from aligner.recipe.load import load_recipe

HEAD = "stage: {stage}\nmodel: {{base: you/base}}\noutput: runs/x\ntrain: {{epochs: 1}}\ndata:\n"
BOTH = "  train:\n    - {{path: train.jsonl, {first}}}\n    - {{path: other.jsonl, {second}}}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("train.jsonl", "other.jsonl", "held.jsonl"):
        (tmp_path / name).write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(rest: str, first: str = "cap: 5", second: str = "cap: 5", stage: str = "sft") -> str:
    """What is told of a recipe with two sources, or "" where it loads."""
    text = HEAD.format(stage=stage) + BOTH.format(first=first, second=second) + rest
    Path("r.yaml").write_text(text)
    try:
        load_recipe(Path("r.yaml"))
    except RecipeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("mixture", "first", "second"),
    [
        ("{by: examples}", "cap: 5", "cap: 5"),
        ("{by: examples, rate_cap: 3000, rows: 100, each: source}", "cap: 5", "share: 0.1"),
        ("{by: temperature, temperature: 2}", "cap: 5", "cap: 5"),
        ("{by: share, share_of: tokens}", "share: 0.3", "share: 0.7"),
        ("{by: share}", "share: 0.333333", "share: 0.666667"),
        ("{by: epochs}", "epochs: 0.5", "cap: 5"),
    ],
)
@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_mixtures_that_fit_load(mixture: str, first: str, second: str, stage: str) -> None:
    assert load(f"  mixture: {mixture}\n", first, second, stage) == ""


@pytest.mark.parametrize(
    ("mixture", "first", "second", "said"),
    [
        ("{by: exampels}", "cap: 5", "cap: 5", 'did you mean "examples"?'),
        (
            "{by: temperature}",
            "cap: 5",
            "cap: 5",
            "temperature: goes with by: temperature, and with nothing else",
        ),
        ("{by: examples, temperature: 2}", "cap: 5", "cap: 5", "temperature: goes with by: temperature"),
        (
            "{by: share, rate_cap: 5}",
            "share: 0.5",
            "share: 0.5",
            "rate_cap: for by: examples or temperature alone",
        ),
        ("{by: epochs, each: file}", "cap: 5", "cap: 5", "each: for by: examples or temperature alone"),
        ("{by: epochs, rows: 5}", "cap: 5", "cap: 5", "rows: follow from the epochs of the sources"),
        ("{by: epochs, share_of: tokens}", "cap: 5", "cap: 5", "share_of: there are no shares"),
        ("{by: epochs}", "share: 0.5", "cap: 5", "train.0.share: a share of nothing; leave it out"),
        ("{by: examples}", "cap: 5", "epochs: 2", "train.1.epochs: goes with mixture: {by: epochs}"),
        ("{by: examples}", "weight: 2.0", "cap: 5", "train.0.weight: the mixture says how often rows come"),
        ("{by: share}", "share: 0.5", "cap: 5", "train.1.share: by: share needs one of every source"),
        ("{by: share}", "share: 0.5", "share: 0.4", "the shares add up to 0.9; they must add up to 1"),
        (
            "{by: examples}",
            "share: 0.5",
            "share: 0.5",
            "every source has a share, and none is left for by: examples",
        ),
        ("{by: examples}", "share: 1.0", "cap: 5", "the shares add up to 1, and nothing is left"),
        ("null", "share: 0.5", "cap: 5", "train.0.share: a share of nothing; add mixture: {by: share}"),
        ("null", "cap: 5", "epochs: 2", "train.1.epochs: goes with mixture: {by: epochs}"),
    ],
)
def test_what_does_not_fit_is_told(mixture: str, first: str, second: str, said: str) -> None:
    told = load(f"  mixture: {mixture}\n", first, second)
    assert said in told and told.count("r.yaml:") == 1, told


def test_all_faults_of_a_mixture_are_told_at_once() -> None:
    told = load("  mixture: {by: share}\n", "weight: 2.0", "epochs: 2")
    for said in ("train.0.weight", "train.0.share", "train.1.share", "train.1.epochs"):
        assert said in told


@pytest.mark.parametrize(
    ("stage", "section", "place"),
    [
        ("sft", "holdout: {sources: [{path: held.jsonl, share: 0.5}]}", "data.holdout.sources.0.share"),
        (
            "sft",
            "decontaminate: {against: [{path: held.jsonl, epochs: 2}]}",
            "data.decontaminate.against.0.epochs",
        ),
        ("ppo", "holdout: [{path: held.jsonl, share: 0.5}]", "data.holdout.0.share"),
    ],
)
def test_shares_belong_to_the_sources_of_a_mixture(stage: str, section: str, place: str) -> None:
    told = load(f"  {section}\n", stage=stage)
    assert f"{place}: no mixture is made of these sources" in told


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            "holdout: {families: [a], sources: [{path: held.jsonl}]}",
            "give either families or sources, not both",
        ),
        ("holdout: {rows: 5, sources: [{path: held.jsonl}]}", "give either rows or sources, not both"),
        ("holdout: {families: [a], rows: 5}", ""),
        ("holdout: {sources: [{path: held.jsonl, format: text}]}", "these rows do not fit here"),
        ("decontaminate: {ngram: 5}", "name evaluation files in against, or set holdout: true"),
        ("decontaminate: {against: [{path: held.jsonl, format: pairs}]}", ""),
        ("decontaminate: {against: [{path: train.jsonl}]}", "train.jsonl is trained on as well"),
        ("decontaminate: {against: [{path: hled.jsonl}]}", 'did you mean "held.jsonl"?'),
        ("decontaminate: {holdout: true, ngram: 0}", "it must be more than 0"),
    ],
)
def test_hold_outs_and_decontamination(section: str, said: str) -> None:
    told = load(f"  {section}\n")
    assert (said in told) if said else not told, told


def test_plain_documents_may_be_trained_on_in_sft_and_not_in_reward() -> None:
    assert load("", first="format: text") == ""
    assert "these rows do not fit here" in load("", first="format: text", stage="reward")
