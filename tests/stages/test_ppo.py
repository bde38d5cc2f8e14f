"""The PPO stage on a tiny real model: it learns, it stops and goes on bit by bit, it leaves a whole run behind."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

import aligner.stages.ppo
from aligner.errors import Interrupted, ModelError, RecipeError
from aligner.models.heads import RewardStats, write_stats
from aligner.models.load import LoadedModel, load_reward_base, load_trained, save_model
from aligner.models.scoring import Scoring
from aligner.recipe.model import ModelSpec
from aligner.recipe.ppo import PpoRecipe
from aligner.run.folder import RunFolder
from aligner.stages.ppo import train_ppo
from tests.tiny import tiny_model, tiny_tokenizer

WORDS = ("cat", "dog", "house", "ball", "town", "story", "apple", "pear")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a base model, reward models of both kinds, and prompts with and without gold."""
    folder = tmp_path_factory.mktemp("world")
    tokenizer = tiny_tokenizer()
    base = LoadedModel(tiny_model(tokenizer), tokenizer, "tiny")
    save_model(base, folder / "base", base_folder=folder / "unused")
    torch.manual_seed(1)
    reward = load_reward_base(ModelSpec(base=str(folder / "base")))
    save_model(reward, folder / "reward", base_folder=folder / "unused")
    write_stats(folder / "reward", RewardStats(0.1, 0.5, 10))
    judge = LoadedModel(tiny_model(tokenizer, seed=1), tokenizer, "judge")
    save_model(judge, folder / "likelihood", base_folder=folder / "unused")
    write_stats(folder / "likelihood", RewardStats(-5.0, 2.0, 10, Scoring("likelihood", 0.1)))
    gold = {"kind": "answerable", "answers": ["red"]}
    rows = [
        {"id": str(i), "family": "f", "prompt": f"What is the color of the {w}?", "gold": gold}
        for i, w in enumerate(WORDS)
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    held = [{"id": f"h{w}", "family": "g", "prompt": f"Is the {w} old?", "gold": gold} for w in WORDS[:4]]
    (folder / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    return folder


def recipe(world, output, *, reward="tests.rl.planted:vowels", lora=None, **ppo):
    source = {"function": reward} if ":" in reward else {"model": reward}
    settings = {
        "steps": 6, "prompts_per_step": 8, "epochs": 2, "minibatches": 2, "learning_rate": 3e-3, "kl_coef": 0.01,
        "missing_eos": {"mode": "subtract", "value": 0.0}, "evaluate_every": 3,
    }  # fmt: skip
    return PpoRecipe.model_validate(
        {
            "stage": "ppo",
            "seed": 3,
            "output": str(output),
            "model": {"base": str(world / "base")} | ({"lora": lora} if lora else {}),
            "reward": [source],
            "data": {
                "train": [{"path": str(world / "prompts.jsonl"), "format": "prompts"}],
                "holdout": [{"path": str(world / "held.jsonl"), "format": "prompts"}],
            },
            "sampling": {"max_new_tokens": 8, "temperature": 1.0},
            "ppo": settings | ppo,
        }
    )


def run_it(plan):
    with RunFolder.open(plan, recipe_text="stage: ppo\n") as run:
        return train_ppo(plan, run)


def lines(folder, name):
    """Rows of a jsonl file but for what the clock said."""
    rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "ppo/tokens_per_second")} for row in rows]


def assert_same_run(a, b, weights="model/model.safetensors"):
    for name in (weights, "value_head.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert lines(a, name) == lines(b, name)


@pytest.fixture(scope="module")
def straight(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    return folder, run_it(recipe(world, folder))


def test_a_planted_reward_rises(world, tmp_path):
    result = run_it(
        recipe(
            world,
            tmp_path / "run",
            steps=16,
            prompts_per_step=64,
            epochs=4,
            learning_rate=1e-2,
            evaluate_every=16,
        )
    )
    rows = [row for row in lines(tmp_path / "run", "metrics.jsonl") if "ppo/proxy_reward" in row]
    rewards = [row["ppo/proxy_reward"] for row in rows]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2
    assert (
        result.results["ppo/holdout_proxy_reward"] > result.results["ppo/holdout_proxy_reward[start]"] + 0.2
    )
    assert result.results["kl/holdout_ref_nats_per_response"] > 0.1
    assert abs(rows[0]["kl/ref_nats_per_response"]) < 1e-4 and rows[0]["ppo/ratio_first_error"] < 1e-4
    assert all(row["ppo/ratio_first_error"] < 1e-4 for row in rows)


def test_what_a_run_leaves_behind(straight, world):
    folder, result = straight
    assert result.artifact == folder / "model"
    start, end = load_trained(world / "base").model, load_trained(folder).model
    assert not torch.equal(start.get_input_embeddings().weight, end.get_input_embeddings().weight)
    assert set(load_file(folder / "value_head.safetensors")) == {"linear.weight", "linear.bias"}
    looks = [row for row in lines(folder, "metrics.jsonl") if "ppo/holdout_proxy_reward" in row]
    assert [row["step"] for row in looks] == [0, 3, 6]
    figures = {"ppo/holdout_gold_reward", "kl/holdout_ref_nats_per_response", "ppo/holdout_distinct_share"}
    assert figures <= set(looks[0])
    steps = [row for row in lines(folder, "metrics.jsonl") if "ppo/proxy_reward" in row]
    both = set(looks[0]) & set(steps[0])  # one name means one thing
    assert both == {"step"}
    samples = lines(folder, "samples.jsonl")
    assert len(samples) == 3 * 4 and {row["family"] for row in samples} == {"g"}
    assert samples[0]["prompt"] == samples[4]["prompt"] and samples[0]["prompt"].startswith("Is the ")
    assert {"proxy_reward", "gold_reward", "kl_nats", "response", "step"} <= set(samples[0])
    assert set(result.results) >= {
        "ppo/holdout_proxy_reward",
        "ppo/holdout_gold_reward",
        "ppo/holdout_gold_reward[start]",
    }


def interrupt_in(monkeypatch, step, act):
    real = aligner.stages.ppo.train_step

    def acting(job, at):
        if at == step:
            act()
        return real(job, at)

    monkeypatch.setattr(aligner.stages.ppo, "train_step", acting)


def test_ctrl_c_finishes_the_step_and_resume_is_bit_identical(straight, world, tmp_path, monkeypatch):
    plan = recipe(world, tmp_path / "run")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job begins with Ctrl-C ignored
    with monkeypatch.context() as patch:
        interrupt_in(patch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Interrupted, match="stopped at step 3 of 6"):
            run_it(plan)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    torch.manual_seed(99)  # a new process would not have this one's random state
    run_it(plan)
    assert_same_run(straight[0], tmp_path / "run")


def test_a_crash_goes_on_from_the_last_checkpoint(straight, world, tmp_path, monkeypatch):
    plan = recipe(world, tmp_path / "run", checkpoint_every=2)

    def crash():
        raise KeyError("power cut")

    with monkeypatch.context() as patch:
        interrupt_in(patch, 5, crash)
        with pytest.raises(KeyError):
            run_it(plan)
    assert [row["step"] for row in lines(tmp_path / "run", "metrics.jsonl")][-1] == 5
    run_it(plan)
    assert_same_run(straight[0], tmp_path / "run")


def test_an_adapter_and_gains_over_a_merged_one_resume_bit_identically(world, tmp_path, monkeypatch):
    run_it(recipe(world, tmp_path / "tuned", lora={"rank": 2, "alpha": 4.0}, steps=1))

    def plan(name):
        lora = {"rank": 4, "alpha": 8.0, "modules_to_save": ["model.norm"]}
        shaped = recipe(world, tmp_path / name, lora=lora, steps=4, gain_learning_rate=3e-2)
        start = shaped.model.model_copy(update={"base": str(tmp_path / "tuned"), "merge": True})
        return shaped.model_copy(update={"model": start})

    run_it(plan("straight"))
    with monkeypatch.context() as patch:
        interrupt_in(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match="stopped at step 2 of 4"):
            run_it(plan("run"))
    torch.manual_seed(99)
    run_it(plan("run"))
    weights = "model/adapter_model.safetensors"
    assert_same_run(tmp_path / "straight", tmp_path / "run", weights)
    gains = [value for name, value in load_file(tmp_path / "run" / weights).items() if "norm" in name]
    assert len(gains) == 1 and not torch.equal(gains[0], torch.ones_like(gains[0]))


@pytest.mark.parametrize("kind", ["reward", "likelihood"])
def test_a_reward_model_and_an_adapter(world, tmp_path, kind):
    plan = recipe(world, tmp_path / "run", reward=str(world / kind), lora={"rank": 4, "alpha": 8.0}, steps=2)
    result = run_it(plan)
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").exists()
    assert load_trained(tmp_path / "run").model is not None
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert set(manifest["parents"]) == {"base", "reward.0"}
    assert "ppo/holdout_proxy_reward" in result.results


def test_bfloat16_takes_its_own_log_probabilities(world, tmp_path):
    run_it(recipe(world, tmp_path / "run", steps=2, precision="bf16"))
    rows = [row for row in lines(tmp_path / "run", "metrics.jsonl") if "ppo/policy_loss" in row]
    assert len(rows) == 2 and all(row["ppo/ratio_first_error"] < 0.1 for row in rows)


def test_a_reward_of_another_vocabulary_is_refused(world, tmp_path):
    tokenizer = tiny_tokenizer(vocab_size=340)
    save_model(LoadedModel(tiny_model(tokenizer), tokenizer, "x"), tmp_path / "b", base_folder=tmp_path / "u")
    save_model(
        load_reward_base(ModelSpec(base=str(tmp_path / "b"))), tmp_path / "rm", base_folder=tmp_path / "u"
    )
    write_stats(tmp_path / "rm", RewardStats(0.0, 1.0, 10))
    with pytest.raises(ModelError, match="vocabulary"):
        run_it(recipe(world, tmp_path / "run", reward=str(tmp_path / "rm")))


def test_prompts_leave_room_for_the_answer(world, tmp_path):
    plan = recipe(world, tmp_path / "run", steps=1)
    short = plan.model_copy(update={"sampling": plan.sampling.model_copy(update={"max_new_tokens": 505})})
    assert run_it(short).artifact == tmp_path / "run" / "model"
    none = plan.model_copy(
        update={
            "output": str(tmp_path / "none"),
            "sampling": plan.sampling.model_copy(update={"max_new_tokens": 512}),
        }
    )
    with pytest.raises(ModelError, match="leave no room for a prompt"):
        run_it(none)


def test_a_wrong_function_is_told_before_a_model_is_loaded(world, tmp_path):
    plan = recipe(world, tmp_path / "run", reward="tests.rl.planted:vowel")
    missing = plan.model_copy(update={"model": ModelSpec(base=str(tmp_path / "nothing"))})
    with pytest.raises(RecipeError, match="did you mean"):
        run_it(missing)
