"""The stage on a tiny real model: transformers' own loss, exact resume, the hand-over in a pipeline."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from aligner.bases import pretrain_fingerprint
from aligner.check import check_recipe
from aligner.data.cleaning.perplexity import text_key
from aligner.errors import DataError, Interrupted, RecipeError, RunError
from aligner.models.load import load_trained
from aligner.pipeline import run_recipe
from aligner.preview import show_dropped_rows, show_recipe
from aligner.recipe.load import load_recipe
from aligner.recipe.perplexity import PerplexityRecipe
from aligner.recipe.stages import PretrainRecipe
from aligner.run.lines import JsonLines
from aligner.stages.perplexity import measure_perplexity
from tests.stages.tools import open_run, save_tiny, write_jsonl
from tests.tiny import SENTENCES, tiny_tokenizer

NOISE = "zq xkcd %% 0xdeadbeef qqq §§ wvvw jjj"
TEXTS = [*SENTENCES, NOISE, "Größe: 12 + 34 = 46."]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGNER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "base", tiny_tokenizer())
    write_jsonl(tmp_path / "documents.jsonl", [{"text": text} for text in [*TEXTS, TEXTS[0]]])
    return tmp_path


def recipe(**changes: object) -> PerplexityRecipe:
    values = {
        "stage": "perplexity", "output": "runs/perplexity", "model": {"base": "base"},
        "sources": [{"path": "documents.jsonl", "format": "documents"}], "rows_per_device": 2,
    }  # fmt: skip
    return PerplexityRecipe.model_validate(values | changes)


def scores(folder: Path) -> dict[str, float]:
    rows = JsonLines(folder / "runs/perplexity/scores.jsonl").rows()
    assert len({row["text"] for row in rows}) == len(rows)
    return {row["text"]: row["bits_per_byte"] for row in rows}


def loss_bits_per_byte(text: str) -> float:
    """Transformers' mean loss over the predicted tokens, times their number, in bits over the bytes."""
    loaded = load_trained("base")
    ids = [loaded.tokenizer.bos_token_id, *loaded.tokenizer.encode(text, add_special_tokens=False)]
    given = torch.tensor([ids])
    with torch.no_grad():
        loss = loaded.model(input_ids=given, labels=given).loss
    return float(loss) * (len(ids) - 1) / math.log(2) / len(text.encode())


def test_every_text_has_the_bits_per_byte_of_transformers_loss_once(folder: Path) -> None:
    with open_run(recipe()) as run:
        result = measure_perplexity(recipe(), run)
    found = scores(folder)
    assert found == {text_key(text): pytest.approx(loss_bits_per_byte(text), rel=1e-5) for text in TEXTS}
    assert result.artifact is None
    size = sum(len(text.encode()) for text in TEXTS)
    total = sum(found[text_key(text)] * len(text.encode()) for text in TEXTS)
    assert result.results["perplexity/bits_per_byte"] == pytest.approx(total / size)
    assert result.results["perplexity/rows_measured"] == 11
    assert result.results["perplexity/texts_measured"] == 10
    assert result.results["perplexity/text_bits_per_byte[50%]"] == pytest.approx(
        sum(sorted(found.values())[4:6]) / 2
    )


def test_pairs_and_conversations_are_measured_as_one_text_and_long_ones_in_windows(folder: Path) -> None:
    write_jsonl(folder / "pairs.jsonl", [{"prompt": "Who?", "chosen": "Tom has it.", "rejected": "No."}])
    given = recipe(sources=[{"path": "pairs.jsonl", "format": "pairs"}], kind="pair")
    with open_run(given) as run:
        measure_perplexity(given, run)
    text = "Who?\nTom has it.\nNo."
    assert scores(folder) == {text_key(text): pytest.approx(loss_bits_per_byte(text), rel=1e-5)}
    short = recipe(output="runs/short", sources=given.model_dump()["sources"], kind="pair", block_length=4)
    with open_run(short) as run:
        measure_perplexity(short, run)
    (row,) = JsonLines(folder / "runs/short/scores.jsonl").rows()
    assert row["bits_per_byte"] != scores(folder)[row["text"]]  # a window of 4 sees less


def test_an_interrupted_run_goes_on_to_the_very_same_scores(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aligner.stages.perplexity.PASSES_KEPT_TOGETHER", 2)
    with open_run(recipe(output="runs/straight")) as run:
        measure_perplexity(recipe(output="runs/straight"), run)
    append = JsonLines.append

    def append_and_interrupt(self: JsonLines, rows: list[dict[str, object]]) -> None:
        append(self, rows)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(JsonLines, "append", append_and_interrupt)
        with pytest.raises(Interrupted, match="4 texts"), open_run(recipe()) as run:
            measure_perplexity(recipe(), run)
    assert len(scores(folder)) == 4
    with (folder / "runs/perplexity/scores.jsonl").open("a") as file:
        file.write('{"text": "torn')  # a power cut on the way
    with open_run(recipe()) as run:
        measure_perplexity(recipe(), run)
    told = [(folder / f"runs/{name}/scores.jsonl").read_text() for name in ("straight", "perplexity")]
    assert told[0] == told[1]


def test_scores_of_another_model_are_not_gone_on_with(folder: Path) -> None:
    with pytest.raises(RuntimeError), open_run(recipe()) as run:
        measure_perplexity(recipe(), run)
        raise RuntimeError("killed before it was noted as finished")
    before = scores(folder)
    save_tiny(folder / "base", tiny_tokenizer(), tie_embeddings=False)
    with open_run(recipe()) as run:
        measure_perplexity(recipe(), run)
    after = scores(folder)
    assert after.keys() == before.keys() and all(after[key] != before[key] for key in after)


PIPELINE = """\
stage: pipeline
output: runs/all
stages:
  small: {use: small.yaml}
  perplexity: {use: perplexity.yaml, set: {model.base: "@small"}}
  base: {use: base.yaml, set: {data.clean.perplexity.scores: "@perplexity"}}
"""
BASE = """\
stage: pretrain
output: runs/base
model: {hidden_size: 32, layers: 1, heads: 2, intermediate_size: 32, context_length: 64}
tokenizer: {vocab_size: 320}
data:
  train: [{path: documents.jsonl, format: documents}]
  block_length: 32
CLEAN
train: {steps: 2, rows_per_step: 4}
"""
CLEAN = "  clean: {perplexity: {scores: runs/perplexity, quantiles: [0, 0.9]}, deduplicate: false}"
PERPLEXITY = """\
stage: perplexity
output: runs/perplexity
model: {base: base}
sources: [{path: documents.jsonl, format: documents}]
"""


@pytest.fixture
def recipes(folder: Path) -> Path:
    (folder / "all.yaml").write_text(PIPELINE)
    (folder / "small.yaml").write_text(BASE.replace("CLEAN\n", ""))
    (folder / "base.yaml").write_text(BASE.replace("CLEAN", CLEAN))
    (folder / "perplexity.yaml").write_text(PERPLEXITY)
    return folder


def test_a_pipeline_hands_the_scores_on(recipes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = check_recipe(Path("all.yaml"))
    assert [row.value for row in plan.stages[2].rows if row.name == "perplexity"] == ["to come"]
    assert [row.value for row in plan.stages[1].rows if row.name == "texts"] == ["10"]
    show_recipe(Path("all.yaml"), count=1)
    assert "base: shown with the rows that perplexity will drop" in capsys.readouterr().err
    assert run_recipe(Path("all.yaml")).status == "done"
    found = {
        row["text"]: row["bits_per_byte"]
        for row in JsonLines(recipes / "runs/all/perplexity/scores.jsonl").rows()
    }
    hardest = max(TEXTS, key=lambda text: found[text_key(text)])
    manifest = json.loads((recipes / "runs/all/base/manifest.json").read_text())
    assert manifest["data"]["train"][0]["dropped"] == {"high_perplexity": 1}
    assert manifest["data"]["words"][0]["path"] == "runs/all/perplexity"
    show_dropped_rows(Path("all.yaml"))
    dropped = capsys.readouterr().out.split("high_perplexity")[1]
    assert [text for text in TEXTS if text in dropped] == [hardest]
    assert [row for row in check_recipe(Path("all.yaml")).stages[2].rows if row.name == "perplexity"] == []
    assert run_recipe(Path("all.yaml")).status == "already_done"


def test_scores_that_lie_there_are_checked_before_anything_is_trained(recipes: Path) -> None:
    with pytest.raises(RecipeError, match="nothing at runs/perplexity"):
        load_recipe(Path("base.yaml"))
    run_recipe(Path("perplexity.yaml"))
    first = load_recipe(Path("base.yaml")).recipe
    assert isinstance(first, PretrainRecipe)
    before = pretrain_fingerprint(first)
    run_recipe(Path("base.yaml"))
    file = recipes / "runs/perplexity/scores.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    assert pretrain_fingerprint(first) != before
    with pytest.raises(RunError, match="made from something else:\n.*runs/perplexity: its bytes had sha256"):
        run_recipe(Path("base.yaml"))
    with pytest.raises(DataError, match=r"documents.jsonl:10: this row has no score"):
        run_recipe(Path("base.yaml"), ["output=runs/other"])
    file.write_text("nonsense\n")
    with pytest.raises(DataError, match=r"scores.jsonl:1: no score"):
        run_recipe(Path("base.yaml"), ["output=runs/other"])
    assert not (recipes / "runs/other/model").exists()
    assert run_recipe(Path("perplexity.yaml"), fresh=True).status == "done"
    assert sorted(file.read_text().splitlines(keepends=True)) == sorted(lines)


def test_a_stage_is_named_in_a_pipeline_alone_and_must_be_an_earlier_one(recipes: Path) -> None:
    with pytest.raises(RecipeError, match="names a stage of a pipeline"):
        load_recipe(Path("base.yaml"), ["data.clean.perplexity.scores=@perplexity"])
    with pytest.raises(RecipeError, match='"@prplexity", which is no earlier stage'):
        check_recipe(Path("all.yaml"), ["stages.base.set={data.clean.perplexity.scores: '@prplexity'}"])
    with pytest.raises(RecipeError, match='takes scores from "@small", a stage of the kind pretrain'):
        check_recipe(Path("all.yaml"), ["stages.base.set={data.clean.perplexity.scores: '@small'}"])


def test_keys_that_say_what_is_trained_on_are_refused_in_a_source() -> None:
    for idle in ({"cap": 3}, {"weight": 2.0}, {"share": 0.5}, {"shots": 1}):
        with pytest.raises(ValidationError, match="every row is measured"):
            recipe(sources=[{"path": "documents.jsonl", **idle}])
