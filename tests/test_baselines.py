"""DPO, KTO, GRPO, RLOO and rejection sampling in PPO's place: planned, shown, run and reported by one changed word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aligner.check import check_recipe
from aligner.errors import DataError, RecipeError
from aligner.pipeline import run_recipe
from aligner.preview import show_recipe
from aligner.recipe.load import load_recipe
from tests.test_pipeline import PPO, RECIPES, folder  # noqa: F401

ON_PAIRS = """\
stage: {stage}
output: runs/{stage}
model: {{base: sft.yaml}}
reward: [{{model: reward.yaml}}]
data: {{train: [{{path: pairs.jsonl, format: pairs}}], max_length: 64}}
train: {{steps: 2, rows_per_step: 4, log_every: 1}}
watch: {{holdout: [{{path: prompts.jsonl, format: prompts}}], holdout_rows: 4}}
sampling: {{max_new_tokens: 4}}
"""
ON_PROMPTS = PPO.replace("{", "{{").replace("}", "}}").replace("ppo", "{stage}")
ON_PROMPTS = ON_PROMPTS.replace(
    "steps: 1, prompts_per_step: 4", "steps: 1, prompts_per_step: 2, samples_per_prompt: 2"
)
TEXTS = {stage: ON_PAIRS.format(stage=stage) for stage in ("dpo", "kto")}
TEXTS |= {stage: ON_PROMPTS.format(stage=stage) for stage in ("grpo", "rloo", "rejection")}


@pytest.mark.parametrize("stage", TEXTS)
def test_one_word_puts_it_where_ppo_stood(
    folder: Path,  # noqa: F811
    stage: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / f"{stage}.yaml").write_text(TEXTS[stage])
    pipeline = RECIPES["all"].replace("use: ppo.yaml", f"use: {stage}.yaml")
    (folder / "all.yaml").write_text(pipeline)
    plan = check_recipe(Path("all.yaml")).stages[-1]
    told = {row.name: row.value for row in plan.rows}
    assert plan.name == f"ppo ({stage})" and {"steps", "memory", "time", "precision"} <= set(told)
    assert told["steps"] == ("2" if stage in ("dpo", "kto") else "1")
    show_recipe(Path("all.yaml"), count=1)
    assert "<|assistant|>" in capsys.readouterr().out
    done = run_recipe(Path("all.yaml"))
    assert done.status == "done" and run_recipe(Path("all.yaml")).status == "already_done"
    parents = json.loads((folder / "runs/all/ppo/manifest.json").read_text())["parents"]
    assert set(parents) == {"base", "reward.0"} and all("runs/all/" in one for one in parents.values())
    results = json.loads((folder / "runs/all/ppo/results.json").read_text())
    assert any(key.startswith(f"{stage}/") for key in results)
    assert (done.folder / "report.html").exists()


@pytest.mark.parametrize("stage", TEXTS)
def test_bad_rows_and_wrong_rewards_are_told_before_any_base_is_trained(folder: Path, stage: str) -> None:  # noqa: F811
    for name in ("pairs", "prompts"):
        with (folder / f"{name}.jsonl").open("a") as file:
            file.write('{"prompt": 3}\n')
    (folder / f"{stage}.yaml").write_text(TEXTS[stage])
    with pytest.raises(DataError) as caught:
        run_recipe(Path(f"{stage}.yaml"))
    assert "prompts.jsonl:9" in str(caught.value) and "pairs.jsonl:9" in str(caught.value)
    wrong = TEXTS[stage].replace("{model: reward.yaml}", '{function: "aligner.evals.gold_rows:score_row"}')
    (folder / f"{stage}.yaml").write_text(wrong)
    for name in ("pairs", "prompts"):
        lines = (folder / f"{name}.jsonl").read_text().splitlines()
        (folder / f"{name}.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(RecipeError, match='did you mean "score_rows"'):
        run_recipe(Path(f"{stage}.yaml"))
    assert not (folder / "home").exists() and not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("stage", "changes", "told"),
    [
        ("dpo", ["watch.holdout=[]"], "reward is measured on answers to watch.holdout"),
        ("dpo", ["dpo.los=ipo"], 'did you mean "dpo.loss"'),
        ("kto", ["train.rows_per_step=1"], "take 2 or more"),
        ("kto", ["data.train.0.format=messages"], "these rows do not fit here"),
        ("grpo", ["grpo.samples_per_prompt=1"], "more than 1"),
        ("rloo", ["rloo.minibatches=3"], "must be a multiple of minibatches = 3"),
        ("rejection", ["rejection.keep=2"], "rejects none of samples_per_prompt = 2"),
        ("rejection", ["rejection.kl_coef=0.1"], 'unknown key "rejection.kl_coef"'),
    ],
)
def test_each_mistake_is_told(folder: Path, stage: str, changes: list[str], told: str) -> None:  # noqa: F811
    (folder / f"{stage}.yaml").write_text(TEXTS[stage])
    with pytest.raises(RecipeError) as caught:
        load_recipe(Path(f"{stage}.yaml"), changes)
    assert told in str(caught.value), str(caught.value)
