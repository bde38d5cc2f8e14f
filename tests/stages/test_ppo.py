"""The PPO stage on a tiny real model: it learns, it stops and goes on bit by bit, it leaves a whole run behind."""

import json
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file

from aligner.errors import Interrupted, ModelError, RecipeError, RunError
from aligner.models.load import load_trained
from aligner.recipe.model import ModelSpec
from tests.stages.ppo_world import assert_same_run, interrupt_in, lines, recipe, run_it, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


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


def test_the_kl_coefficient_follows_the_kl(world, tmp_path):
    aim = {"target": 0.5, "horizon": 40}
    run_it(recipe(world, tmp_path / "run", adaptive_kl=aim, kl_coef=0.2, learning_rate=1e-2))
    rows = [row for row in lines(tmp_path / "run", "metrics.jsonl") if "ppo/kl_coef" in row]
    want = 0.2
    for row in rows:
        assert row["ppo/kl_coef"] == pytest.approx(want, rel=1e-12)
        error = row["kl/ref_nats_per_response"] / 0.5 - 1
        want *= 1 + max(-0.2, min(0.2, error)) * 8 / 40
    assert rows[1]["ppo/kl_coef"] == pytest.approx(0.2 * 0.96)  # the first step's KL is 0


@pytest.mark.parametrize(
    ("ppo", "word"),
    [
        ({"adaptive_kl": {"target": 1.0}, "kl_coef": 0.0}, "stays 0"),
        ({"adaptive_kl": {"target": 1.0, "horizon": 7}}, "at least as long"),
        ({"dual_clip": 1.0}, "greater than 1"),
        ({"target_kl": 0.0}, "greater than 0"),
        ({"value_init": "reward"}, "reward names 0"),
        ({"value_warmup_steps": 6}, "leaves none of 6 steps"),
    ],
)
def test_what_cannot_be_is_refused(world, tmp_path, ppo, word):
    with pytest.raises(ValueError, match=word):
        recipe(world, tmp_path / "run", **ppo)


@pytest.mark.parametrize("changed", ["base", "reward"])
def test_a_run_does_not_go_on_from_another_reference_or_reward(world, tmp_path, monkeypatch, changed):
    copied = tmp_path / "world"
    shutil.copytree(world, copied)
    plan = recipe(copied, tmp_path / "run", reward=str(copied / "reward"), steps=3)
    with monkeypatch.context() as patch:
        interrupt_in(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run_it(plan)
    weights = load_file(copied / changed / "model.safetensors")
    save_file(
        {n: w + 0.01 for n, w in weights.items()}, copied / changed / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(RunError, match=changed):
        run_it(plan)


@pytest.mark.parametrize("kind", ["reward", "likelihood"])
def test_a_reward_model_and_an_adapter(world, tmp_path, kind):
    plan = recipe(world, tmp_path / "run", reward=str(world / kind), lora={"rank": 4, "alpha": 8.0}, steps=2)
    result = run_it(plan)
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").exists()
    assert load_trained(tmp_path / "run").model is not None
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert set(manifest["parents"]) == {"base", "reward.0"}
    assert "ppo/holdout_proxy_reward" in result.results


def test_a_critic_from_the_reward_model_that_is_warmed_up(world, tmp_path):
    changes = {"value_init": "reward", "value_warmup_steps": 2, "steps": 3, "kl_coef": 0.2}
    changes["adaptive_kl"] = {"target": 1.0, "horizon": 40}
    run_it(recipe(world, tmp_path / "run", reward=str(world / "reward"), checkpoint_every=1, **changes))
    rows = [row for row in lines(tmp_path / "run", "metrics.jsonl") if "ppo/kl_coef" in row]
    # the policy waits, and so does the coefficient; only then is there a KL to steer
    assert [row["ppo/kl_coef"] for row in rows] == [0.2, 0.2, 0.2]
    assert [abs(row["kl/ref_nats_per_response"]) < 1e-4 for row in rows] == [True] * 3
    head = load_file(tmp_path / "run" / "value_head.safetensors")
    score = load_file(world / "reward" / "model.safetensors")["score.weight"]
    cosine = torch.nn.functional.cosine_similarity(head["linear.weight"], score / 0.5)
    assert float(cosine) > 0.9  # three steps away from where it began


def test_bfloat16_takes_its_own_log_probabilities(world, tmp_path):
    run_it(recipe(world, tmp_path / "run", steps=2, precision="bf16"))
    rows = [row for row in lines(tmp_path / "run", "metrics.jsonl") if "ppo/policy_loss" in row]
    assert len(rows) == 2 and all(row["ppo/ratio_first_error"] < 0.1 for row in rows)


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
