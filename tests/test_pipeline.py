"""From recipes to run folders: bases made once, artifacts handed on, finished work left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aligner.bases import base_folder, pretrain_fingerprint
from aligner.errors import RecipeError, RunError
from aligner.pipeline import planned_stages, run_recipe
from aligner.recipe.load import load_recipe
from aligner.recipe.stages import PretrainRecipe

BASE = """\
stage: pretrain
output: runs/base
model: {hidden_size: 32, layers: 1, heads: 2, intermediate_size: 32, context_length: 64}
tokenizer: {vocab_size: 320}
data:
  train: [{path: documents.jsonl, format: documents}]
  block_length: 32
train: {steps: 2, rows_per_step: 4}
"""
SFT = """\
stage: sft
output: runs/sft
model: {base: base.yaml, lora: {rank: 2, alpha: 4}}
data: {train: [{path: chats.jsonl, format: messages}], max_length: 64}
train: {steps: 2, rows_per_step: 4}
"""
REWARD = """\
stage: reward
output: runs/reward
model: {base: sft.yaml, merge: true}
data: {train: [{path: pairs.jsonl, format: pairs}], max_length: 64}
train: {steps: 2, rows_per_step: 4}
"""
PPO = """\
stage: ppo
output: runs/ppo
model: {base: sft.yaml}
reward: [{model: reward.yaml}]
data: {train: [{path: prompts.jsonl, format: prompts}]}
sampling: {max_new_tokens: 4}
ppo: {steps: 1, prompts_per_step: 4, epochs: 1}
"""
PIPELINE = """\
stage: pipeline
output: runs/all
stages:
  base: {use: base.yaml}
  sft:
    use: sft.yaml
    set: {model.base: "@base"}
  reward:
    use: reward.yaml
    set: {model.base: "@sft"}
  ppo:
    use: ppo.yaml
    set: {model.base: "@sft", reward.0.model: "@reward"}
"""
RECIPES = {"base": BASE, "sft": SFT, "reward": REWARD, "ppo": PPO, "all": PIPELINE}


def _rows() -> dict[str, list[dict[str, object]]]:
    words = ["red", "blue", "green", "black", "white", "brown", "pink", "grey"]
    asked = [f"Which colour has ball {i}?" for i in range(len(words))]
    chats = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": w}]}
        for q, w in zip(asked, words, strict=True)
    ]
    pairs = [{"prompt": q, "chosen": w, "rejected": w + " silly"} for q, w in zip(asked, words, strict=True)]
    documents = [
        {"text": f"The ball number {i} is {w}, and so is the hat of {w} wool."} for i, w in enumerate(words)
    ]
    return {
        "documents": documents * 2,
        "chats": chats,
        "pairs": pairs,
        "prompts": [{"prompt": q} for q in asked],
    }


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in RECIPES.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    for name, rows in _rows().items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("ALIGNER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _base() -> PretrainRecipe:
    recipe = load_recipe(Path("base.yaml")).recipe
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def test_a_pipeline_hands_artifacts_on_skips_what_is_done_and_resumes_what_is_not(folder: Path) -> None:
    first = run_recipe(Path("all.yaml"))
    assert first.status == "done" and (first.folder / "report.html").exists()
    assert {"sft", "base", "reward", "ppo"} <= {path.name for path in first.folder.iterdir()}
    parents = json.loads((folder / "runs/all/ppo/manifest.json").read_text())["parents"]
    assert all("runs/all/" in identity for identity in parents.values()), parents
    weights = folder / "runs/all/sft/model/adapter_model.safetensors"
    before = (weights.stat().st_mtime_ns, weights.read_bytes())
    again = run_recipe(Path("all.yaml"))
    assert again.status == "already_done"
    assert (weights.stat().st_mtime_ns, weights.read_bytes()) == before
    assert not (folder / "home").exists()  # nothing but named recipes goes to the cache


def test_a_base_recipe_is_trained_once_and_taken_from_the_cache_after_that(folder: Path) -> None:
    run_recipe(Path("sft.yaml"))
    weights = base_folder(_base()) / "model" / "model.safetensors"
    trained = weights.stat().st_mtime_ns
    assert weights.is_relative_to(folder / "home")
    run_recipe(Path("sft.yaml"), ["output=runs/other", "train.learning_rate=1e-4"])
    assert weights.stat().st_mtime_ns == trained
    assert [path.name for path in (folder / "home" / "bases").iterdir()] == [weights.parent.parent.name]


def test_the_fingerprint_follows_recipe_and_data_and_not_the_output(folder: Path) -> None:
    recipe = _base()
    before = pretrain_fingerprint(recipe)
    assert pretrain_fingerprint(recipe.model_copy(update={"output": "elsewhere"})) == before
    assert pretrain_fingerprint(recipe.model_copy(update={"seed": 1})) != before
    with (folder / "documents.jsonl").open("a") as file:
        file.write('{"text": "One more ball is red, and it is the last of all the balls."}\n')
    assert pretrain_fingerprint(recipe) != before


def test_all_stages_mistakes_are_told_at_once_before_anything_runs(folder: Path) -> None:
    broken = PIPELINE.replace('"@base"', '"@bsae"').replace("reward.0.model", "reward.0.modle")
    (folder / "all.yaml").write_text(broken)
    with pytest.raises(RecipeError) as caught:
        run_recipe(Path("all.yaml"))
    told = str(caught.value)
    assert 'did you mean "base"?' in told and 'did you mean "model"?' in told
    assert not (folder / "runs").exists()


def test_a_stage_made_from_an_earlier_artifact_is_refused(folder: Path) -> None:
    (folder / "short.yaml").write_text(PIPELINE.split("  reward:\n")[0].replace("runs/all", "runs/short"))
    run_recipe(Path("short.yaml"))
    manifest = folder / "runs/short/base/manifest.json"
    manifest.write_text(manifest.read_text().replace('"finished"', '"interrupted"'))
    with pytest.raises(RunError, match="made from an earlier"):
        run_recipe(Path("short.yaml"))
    assert run_recipe(Path("short.yaml"), fresh=True).status == "done"


def test_planned_stages_of_a_single_recipe_are_itself() -> None:
    (stage,) = planned_stages(Path("sft.yaml"))
    assert (stage.name, stage.uses) == ("sft", ())


def test_check_and_show_say_what_would_happen_and_train_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from aligner.check import check_recipe
    from aligner.preview import show_recipe

    plan = {
        stage.name: {row.name: row.value for row in stage.rows}
        for stage in check_recipe(Path("all.yaml")).stages
    }
    assert list(plan) == ["base (pretrain)", "sft (sft)", "reward (reward)", "ppo (ppo)"]
    assert plan["sft (sft)"]["rows"] == "8" and plan["sft (sft)"]["steps"] == "2"
    assert plan["ppo (ppo)"]["prompts"] == "8"
    show_recipe(Path("all.yaml"), count=1)
    shown = capsys.readouterr().out
    assert "<|assistant|>" in shown and "is rejected" in shown
    assert not (folder / "runs").exists() and not (folder / "home").exists()
