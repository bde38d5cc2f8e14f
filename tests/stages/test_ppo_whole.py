"""PPO with everything on: whatever decides the next step is in the checkpoint, at every boundary between two."""

import importlib
import json
import os
import shutil
import signal

import pytest
import torch

from aligner.errors import DataError, Interrupted, ModelError, RecipeError
from aligner.models.heads import RewardStats, write_stats
from aligner.models.load import load_trained
from aligner.recipe.ppo import PpoRecipe
from aligner.rl.finite import Stopped
from aligner.run.checkpoint import load_newest
from aligner.stages.ppo_watch import Watch
from tests.stages.ppo_world import assert_same_run, interrupt_in, lines, recipe, run_it, write_world
from tests.tiny import SENTENCES

STEPS = 5


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = write_world(tmp_path_factory.mktemp("world"))
    rules = [{"rule": "no_cat", "forbids": "cat", "weight": 0.5}, {"rule": "a_vowel", "requires": "[aeiou]"}]
    (folder / "rules.jsonl").write_text("".join(json.dumps(rule) + "\n" for rule in rules))
    (folder / "text.txt").write_text("\n".join(SENTENCES))
    return folder


def everything(world, output, **changes):
    """Every part that carries something from one step to the next."""
    plan = recipe(
        world, output, reward=str(world / "reward"), steps=STEPS, samples_per_prompt=2, epochs=2, minibatches=2, evaluate_every=2, learning_rate=1e-2, kl_coef=0.1,
        adaptive_kl={"target": 0.2, "horizon": 40}, target_kl=0.01, entropy_coef=0.01, clip_high=0.3, dual_clip=3.0,
        value_init="reward", value_warmup_steps=1, missing_eos={"mode": "mask"}, keep_best="proxy",
        guards={"length": {"limit": 0.5, "act": "warn"}, "value": {"limit": 1e-3, "act": "warn"}},
        lora={"rank": 4, "alpha": 8.0, "modules_to_save": ["model.norm"]}, **changes,
    )  # fmt: skip
    rewards = [
        {"model": str(world / "reward"), "clip": 2.0},
        {"rules": str(world / "rules.jsonl"), "weight": 0.5},
        {"function": "tests.rl.planted:long_tokens", "dense": True, "weight": 0.1},
    ]
    text = {"sources": [{"path": str(world / "text.txt"), "format": "text"}]}
    ptx = text | {"coef": 0.1, "rows_per_step": 3, "block_length": 16}
    longer = {"max_new_tokens": 32, "temperature": 1.0}  # some responses of an untrained model come to an end
    return PpoRecipe.model_validate(plan.model_dump() | {"reward": rewards, "ptx": ptx, "sampling": longer})


@pytest.fixture(scope="module")
def straight(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    return folder, run_it(everything(world, folder))


@pytest.mark.parametrize("boundary", range(1, STEPS))
def test_resume_is_bit_identical_at_every_step_boundary(straight, world, tmp_path, monkeypatch, boundary):
    plan = everything(world, tmp_path / "run")
    with monkeypatch.context() as patch:
        interrupt_in(patch, boundary - 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match=f"stopped at step {boundary} of {STEPS}"):
            run_it(plan)
    torch.manual_seed(99)
    result = run_it(plan)
    assert_same_run(straight[0], tmp_path / "run", "model/adapter_model.safetensors")
    assert result.results == straight[1].results
    ids = torch.tensor([[1, 20, 21, 60, 61]])
    tuned, start = load_trained(tmp_path / "run").model, load_trained(world / "base").model
    with torch.no_grad(), tuned.disable_adapter():  # the reference was the start model, and is
        assert torch.equal(tuned(ids).logits, start(ids).logits)


def test_every_part_was_at_work(straight):
    rows = [row for row in lines(straight[0], "metrics.jsonl") if "ppo/kl_coef" in row]
    assert len({row["ppo/kl_coef"] for row in rows}) > 2
    assert rows[0]["ppo/ptx_nats"] == 0.0 and all(row["ppo/ptx_nats"] > 1 for row in rows[1:])
    steps = [row["ppo/optimiser_steps"] for row in rows]
    assert steps[0] == 4 and min(steps) < 4  # target_kl ended an update
    assert all(row["ppo/guard_warnings"] >= 1 for row in rows)
    assert (
        0 < sum(row["ppo/finished_share"] for row in rows) < STEPS
    )  # some responses count, and some are masked


def test_the_checkpoint_says_where_everything_stands(world, tmp_path, monkeypatch):
    plan = everything(world, tmp_path / "run", checkpoint_every=4)
    with monkeypatch.context() as patch:
        interrupt_in(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run_it(plan)
    found = load_newest(tmp_path / "run" / "checkpoints")
    rows = [row for row in lines(tmp_path / "run", "metrics.jsonl") if "ppo/optimiser_steps" in row]
    progress = found.state["progress"]
    assert progress["ptx_rows"] == 3 * sum(
        row["ppo/optimiser_steps"] for row in rows[1:]
    )  # the first warms up
    assert progress["first_length"] == pytest.approx(rows[0]["ppo/response_tokens"])
    assert progress["best_step"] in (0, 2, 4) and any(name.startswith("best.") for name in found.tensors)


@pytest.mark.parametrize("by", ["gold", "proxy"])
def test_the_best_policy_is_kept_and_its_figures_are_the_results(world, tmp_path, monkeypatch, by):
    rewards = iter([0.1, 0.5, 0.5, 0.2])  # looks after steps 0, 2, 4 and 6; the first of the two best is kept
    seen, look = {}, Watch.look

    def planted(self, policy, step):
        metrics, samples = look(self, policy, step)
        seen[step] = {name: weight.detach().clone() for name, weight in policy.model.named_parameters()}
        return metrics | {f"ppo/holdout_{by}_reward": next(rewards)}, samples

    monkeypatch.setattr(Watch, "look", planted)
    result = run_it(recipe(world, tmp_path / "run", keep_best=by, evaluate_every=2, learning_rate=1e-2))
    assert result.results["ppo/best_step"] == 2.0
    assert result.results[f"ppo/holdout_{by}_reward"] == 0.5
    assert result.results[f"ppo/holdout_{by}_reward[start]"] == 0.1
    assert result.results[f"ppo/holdout_{by}_reward[last]"] == 0.2
    kept = dict(load_trained(tmp_path / "run").model.named_parameters())
    assert all(torch.equal(kept[name], weight) for name, weight in seen[2].items())
    assert not all(torch.equal(kept[name], weight) for name, weight in seen[6].items())


def test_the_best_needs_something_to_compare(world, tmp_path):
    plan = recipe(world, tmp_path / "run", keep_best="gold")
    with pytest.raises(ValueError, match=r"give data\.holdout"):
        PpoRecipe.model_validate(plan.model_dump() | {"data": plan.data.model_dump() | {"holdout": []}})
    (world / "without.jsonl").write_text('{"id": "x", "family": "g", "prompt": "Is the cat old?"}\n')
    held = [{"path": str(world / "without.jsonl"), "format": "prompts"}]
    blind = PpoRecipe.model_validate(plan.model_dump() | {"data": plan.data.model_dump() | {"holdout": held}})
    with pytest.raises(RecipeError, match="no held-out prompt has a gold answer"):
        run_it(blind)


def test_a_guard_stops_before_the_update_with_the_last_good_checkpoint(world, tmp_path):
    calm = recipe(world, tmp_path / "calm", steps=6, learning_rate=3e-2, checkpoint_every=1)
    run_it(calm)
    kls = [
        row["kl/ref_nats_per_response"]
        for row in lines(tmp_path / "calm", "metrics.jsonl")
        if "ppo/kl_coef" in row
    ]
    limit = max(kls[:3]) + 1e-6
    first = next(i for i, kl in enumerate(kls) if kl > limit)
    plan = recipe(world, tmp_path / "run", steps=6, learning_rate=3e-2, guards={"kl": {"limit": limit}})
    for _ in range(2):  # it goes on from there, and stops there again
        with pytest.raises(Stopped, match="more than"):
            run_it(plan)
        found = load_newest(tmp_path / "run" / "checkpoints")
        assert found.step == first
        assert [row["step"] for row in lines(tmp_path / "run", "metrics.jsonl")][-1] == first


def test_a_run_whose_reward_fails_goes_on_from_the_step_before(world, tmp_path, monkeypatch):
    run_it(recipe(world, tmp_path / "straight", steps=4, reward="tests.rl.planted:failing"))
    plan = recipe(world, tmp_path / "run", steps=4, reward="tests.rl.planted:failing")
    with monkeypatch.context() as patch:
        patch.setitem(importlib.import_module("tests.rl.planted").CALLS, "left", 3)  # a look and two steps
        with pytest.raises(Stopped, match="gave nan"):
            run_it(plan)
    assert load_newest(tmp_path / "run" / "checkpoints").step == 2
    run_it(plan)
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_a_reward_that_is_no_number_stops_before_the_update(world, tmp_path):
    odd = tmp_path / "odd"
    shutil.copytree(world / "reward", odd)
    write_stats(odd, RewardStats(0.1, 1e-44, 10))
    plan = recipe(world, tmp_path / "run", reward=str(odd))
    with pytest.raises(Stopped, match=r"rewards of tokens .* are no numbers, the first is -?inf"):
        run_it(plan.model_copy(update={"data": plan.data.model_copy(update={"holdout": []})}))
    assert load_newest(tmp_path / "run" / "checkpoints") is None  # there was no step whose weights to keep


@pytest.mark.parametrize(
    ("ptx", "error", "word"),
    [
        ({"block_length": 100_000}, ModelError, "exceeds the model's context of 512"),
        ({"block_length": 500}, DataError, "do not fill one block of 500"),
    ],
)
def test_text_that_does_not_fit_is_told(world, tmp_path, ptx, error, word):
    plan = everything(world, tmp_path / "run")
    changed = plan.model_copy(update={"ptx": plan.ptx.model_copy(update=ptx)})
    with pytest.raises(error, match=word):
        run_it(changed)
