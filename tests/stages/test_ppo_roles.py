"""PPO with its four roles on one backbone: plain or quantised, a critic with an adapter, a reward model that reads texts."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from aligner.errors import Interrupted
from aligner.models.heads import RewardStats, write_stats
from aligner.models.load import LoadedModel, load_reward_base, load_trained, save_model
from aligner.recipe.model import LoraSpec, ModelSpec
from aligner.rl.ranks import ALONE
from aligner.run.folder import RunFolder
from aligner.stages.ppo import train_step
from aligner.stages.ppo_job import prepare
from tests.models.runs import save_reward, write_base
from tests.stages.ppo_world import assert_same_run, interrupt_in, lines, recipe, run_it, write_world
from tests.tiny import tiny_model, tiny_tokenizer

LORA = {"rank": 4, "alpha": 8.0, "modules_to_save": ["model.norm"]}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """With a wider base, and a reward run whose adapter lies over it."""
    folder = write_world(tmp_path_factory.mktemp("world"))
    write_base(folder / "wide", hidden=64)  # 4bit works in blocks of 64
    write_base(folder / "wider", hidden=256, layers=4)
    save_reward(folder / "adapter", ModelSpec(base=str(folder / "wide"), lora=LoraSpec(rank=2, alpha=4)))
    return folder


def plan_of(world, output, *, quantize="none", reward="adapter", **ppo):
    plan = recipe(
        world, output, reward=str(world / reward), lora=LORA, **({"steps": 3, "evaluate_every": 2} | ppo)
    )
    model = plan.model.model_copy(update={"base": str(world / "wide"), "quantize": quantize})
    return plan.model_copy(update={"model": model})


def steps_of(folder):
    return [row for row in lines(folder, "metrics.jsonl") if "ppo/policy_loss" in row]


@pytest.mark.parametrize("quantize", ["none", "8bit", "4bit"])
def test_four_roles_on_one_backbone_train_adapters_alone(world, tmp_path, capsys, quantize):
    if quantize != "none":
        pytest.importorskip("bitsandbytes", reason="needs the [quant] extra")
    plan = plan_of(world, tmp_path / "run", quantize=quantize, value="adapter", learning_rate=1e-2)
    with RunFolder.open(plan.model_copy(update={"output": str(tmp_path / "look")}), recipe_text="") as run:
        job = prepare(plan, run, ALONE)
    assert "reward.0: on the policy's backbone" in capsys.readouterr().err
    (reward,) = job.rewards.models().values()
    roles = [job.policy.model, job.reference.model, reward.model.model, job.policy.value_trunk]
    layers = [{w.data_ptr() for w in role.parameters() if not w.requires_grad} for role in roles]
    backbone = set.intersection(*layers)
    numel = {w.data_ptr(): w.numel() for w in job.policy.model.parameters() if not w.requires_grad}
    assert backbone == set(numel)  # the whole of it, in all four
    before = {n: w.detach().clone() for n, w in job.policy.model.named_parameters()}
    train_step(job, 0)
    moved = {n for n, w in job.policy.model.named_parameters() if not torch.equal(w, before[n])}
    assert moved and all("lora_" in name or "modules_to_save" in name for name in moved)
    run_it(plan)
    rows = steps_of(tmp_path / "run")
    noise = 1e-2 if quantize == "8bit" else 1e-4  # LLM.int8 rounds activations, each pass for itself
    kls = [abs(row["kl/ref_nats_per_response"]) for row in rows]
    assert len(kls) == 3 and kls[0] < noise < kls[2]
    assert all(row["ppo/ratio_first_error"] < noise for row in rows)
    assert job.policy.same_numerics is (quantize != "8bit")
    saved = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
    assert saved and all("lora_" in name or "norm" in name for name in saved)
    assert any(w.any() for name, w in saved.items() if "lora_B" in name)
    critic = load_file(tmp_path / "run" / "value_head.safetensors")
    assert {"linear.weight", "linear.bias"} < set(critic) and any(
        w.any() for n, w in critic.items() if "lora_B" in n
    )
    assert load_trained(tmp_path / "run").model is not None  # over the base as it is, unquantised


def test_rounded_activations_do_not_stop_a_wider_model(world, tmp_path):
    """The sampler's log-probabilities and those of a full pass part by percents there, which is no mistake."""
    pytest.importorskip("bitsandbytes", reason="needs the [quant] extra")
    plan = plan_of(world, tmp_path / "run", quantize="8bit", reward="reward", steps=2)
    run_it(plan.model_copy(update={"model": plan.model.model_copy(update={"base": str(world / "wider")})}))
    rows = steps_of(tmp_path / "run")
    assert all(row["ppo/ratio_first_error"] < 0.1 for row in rows)
    assert abs(rows[0]["kl/ref_nats_per_response"]) < 0.1


def test_sharing_changes_no_number(world, tmp_path, monkeypatch):
    run_it(plan_of(world, tmp_path / "shared"))
    with monkeypatch.context() as patch:
        patch.setattr("aligner.models.heads.stand_on", None)  # it would be called
        patch.setattr("aligner.models.backbone.Backbone.unlike", lambda *_: "the test says so")
        run_it(plan_of(world, tmp_path / "apart"))
    assert_same_run(tmp_path / "shared", tmp_path / "apart", "model/adapter_model.safetensors")


@pytest.mark.parametrize("init", ["zero", "reward"])
def test_a_critic_with_an_adapter_resumes_bit_identically_and_its_best_is_kept(
    world, tmp_path, monkeypatch, init
):
    def plan(name):
        return plan_of(
            world, tmp_path / name, value="adapter", value_init=init, value_learning_rate=3e-2, value_warmup_steps=1,
            steps=4, keep_best="proxy", evaluate_every=1,
        )  # fmt: skip

    result = run_it(plan("straight"))
    for boundary in (1, 3):
        with monkeypatch.context() as patch:
            interrupt_in(patch, boundary - 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(Interrupted, match=f"stopped at step {boundary} of 4"):
                run_it(plan(f"run{boundary}"))
        torch.manual_seed(99)
        assert run_it(plan(f"run{boundary}")).results == result.results
        assert_same_run(tmp_path / "straight", tmp_path / f"run{boundary}", "model/adapter_model.safetensors")
    rows = steps_of(tmp_path / "straight")
    assert abs(rows[1]["kl/ref_nats_per_response"]) < 1e-4 < abs(rows[3]["kl/ref_nats_per_response"])
    assert rows[0]["ppo/value_loss"] > 0


def test_a_critic_with_an_adapter_learns_what_a_head_cannot_start_from(world, tmp_path):
    """The same steps with the policy standing still: the value loss of the adapter's critic falls at least as far."""
    last = {}
    for value in ("head", "adapter"):
        run_it(
            plan_of(
                world,
                tmp_path / value,
                value=value,
                value_warmup_steps=7,
                steps=8,
                value_learning_rate=1e-2,
                kl_coef=0.0,
            )
        )
        last[value] = steps_of(tmp_path / value)[-1]["ppo/explained_variance"]
    assert last["adapter"] > last["head"]


def test_full_fine_tuning_takes_an_adapters_critic_over_the_start_model(world, tmp_path):
    plan = plan_of(world, tmp_path / "run", value="adapter", steps=2)
    plan = plan.model_copy(update={"model": plan.model.model_copy(update={"lora": None})})
    run_it(plan)
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
    assert all(row["ppo/ratio_first_error"] < 1e-4 for row in steps_of(tmp_path / "run"))


def test_bfloat16_with_an_adapters_critic(world, tmp_path):
    run_it(plan_of(world, tmp_path / "run", value="adapter", steps=2, precision="bf16"))
    assert len(steps_of(tmp_path / "run")) == 2


def test_a_reward_of_another_vocabulary_reads_the_texts(world, tmp_path, capsys):
    tokenizer = tiny_tokenizer(vocab_size=340)
    save_model(LoadedModel(tiny_model(tokenizer), tokenizer, "x"), tmp_path / "b", base_folder=tmp_path / "u")
    save_model(
        load_reward_base(ModelSpec(base=str(tmp_path / "b"))), tmp_path / "rm", base_folder=tmp_path / "u"
    )
    write_stats(tmp_path / "rm", RewardStats(0.0, 1.0, 10))
    result = run_it(recipe(world, tmp_path / "run", reward=str(tmp_path / "rm"), steps=2))
    told = capsys.readouterr().err
    assert "reward.0: a model of its own: it was trained whole; it reads texts, by its own tokenizer" in told
    assert torch.isfinite(torch.tensor(result.results["ppo/holdout_proxy_reward"]))
