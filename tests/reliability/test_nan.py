"""NaN in any tensor that an update is made of ends the run in that step: no weight moves, no checkpoint has it.

The twelve of PPO: weights of the policy, the value head, the reference and the reward model; scores of responses and
rewards of tokens; log-probabilities of the sampler and of the reference; values; advantages; the gradients of the
policy and of the value head.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import aligner.rl.update
import aligner.stages.group
import aligner.stages.ppo
from aligner.errors import DataError, TrainingError
from aligner.models.sample import sample_responses
from aligner.pipeline import run_stage
from aligner.rl.seeds import generator
from aligner.run.checkpoint import load_newest
from aligner.run.manifest import Manifest
from aligner.stages.callback import RunCallback
from aligner.stages.loop import StageTrainer
from tests.reliability.worlds import STAGES, STEPS
from tests.stages import ppo_world, test_group, test_reward
from tests.stages.tools import write_jsonl
from tests.tiny import tiny_model, tiny_tokenizer

Patch = pytest.MonkeyPatch
Spoil = Callable[[Any, Patch], None]  # given the job or trainer, just before its second step
NAN = float("nan")
SEED = 3  # of the recipes in ppo_world
planted = importlib.import_module("tests.rl.planted")


def nan_in(tensor: Tensor) -> None:
    tensor.data[(0,) * tensor.dim()] = NAN


def norm_of(model: nn.Module) -> nn.Parameter:
    """A weight that everything a model says goes through."""
    return next(weight for name, weight in model.named_parameters() if "norm" in name)


def last_trained(model: nn.Module) -> nn.Parameter:
    return [weight for weight in model.parameters() if weight.requires_grad][-1]


def spoiled(patch: Patch, module: Any, name: str, change: Callable[[Any], Any]) -> None:
    """What this function gives from now on is changed first."""
    real = getattr(module, name)
    patch.setattr(module, name, lambda *args, **more: change(real(*args, **more)))


def with_nan(tensor: Tensor) -> Tensor:
    nan_in(tensor)
    return tensor


def late_nan(advantages_B: Tensor) -> Tensor:
    """In the last minibatch of the second step alone: the first would not notice."""
    order = torch.randperm(len(advantages_B), generator=generator(SEED, "minibatches", 1, 0))
    advantages_B[order[-1]] = NAN
    return advantages_B


def in_rollout(field: str, module: Any) -> Spoil:
    def change(found: Any) -> Any:
        rollout = found.answered.rollout
        rollout = replace(rollout, **{field: with_nan(getattr(rollout, field))})
        return found._replace(answered=replace(found.answered, rollout=rollout))

    return lambda job, patch: spoiled(patch, module, "collect_step", change)


def no_number(job: Any, patch: Patch) -> None:
    patch.setitem(planted.CALLS, "left", 0)


def hooked(weight: nn.Parameter) -> None:
    weight.register_hook(lambda gradient: gradient * NAN)


def reward_model(job: Any) -> nn.Module:
    return job.rewards.parts[0].reward.model.model  # type: ignore[no-any-return]


PPO, GROUP = aligner.stages.ppo, aligner.stages.group
OF_PPO: dict[str, tuple[str, Spoil]] = {
    "policy weights": ("vowels", lambda job, _: nan_in(norm_of(job.policy.model))),
    "value head": ("vowels", lambda job, _: nan_in(next(job.policy.value_head.parameters()))),
    "reference": ("vowels", lambda job, _: nan_in(norm_of(job.reference.model))),
    "reward model": ("reward", lambda job, _: nan_in(norm_of(reward_model(job)))),
    "scores": ("failing", no_number),
    "token rewards": ("failing_tokens", no_number),
    "sampler's log-probabilities": ("vowels", in_rollout("logprobs_BR", PPO)),
    "reference's log-probabilities": ("vowels", lambda _, patch: spoiled(patch, PPO, "logprobs_of", with_nan)),
    "values": ("vowels", in_rollout("values_BR", PPO)),
    "advantages": ("vowels", lambda _, patch: spoiled(patch, aligner.rl.update, "gae", with_nan)),
    "policy gradient": ("vowels", lambda job, _: hooked(norm_of(job.policy.model))),
    "value gradient": ("vowels", lambda job, _: hooked(next(job.policy.value_head.parameters()))),
}  # fmt: skip
OF_GROUPS: dict[str, tuple[str, Spoil]] = {
    "policy weights": OF_PPO["policy weights"],
    "reference": OF_PPO["reference"],
    "reward model": OF_PPO["reward model"],
    "scores": OF_PPO["scores"],
    "sampler's log-probabilities": ("vowels", in_rollout("logprobs_BR", GROUP)),
    "reference's log-probabilities": ("vowels", lambda _, patch: spoiled(patch, GROUP, "logprobs_of", with_nan)),
    "advantages": ("vowels", lambda _, patch: spoiled(patch, GROUP, "advantages", late_nan)),
    "policy gradient": OF_PPO["policy gradient"],
}  # fmt: skip


def bits(weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """NaN is equal to itself here."""
    return {name: weight.detach().clone().view(torch.int32) for name, weight in weights.items()}


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() and [n for n in one if not torch.equal(one[n], other[n])] == []


def assert_kept(run: Path, step: int) -> None:
    """The newest checkpoint is that of this step, and holds numbers alone."""
    found = load_newest(run / "checkpoints")
    assert found is not None and found.step == step
    assert all(bool(t.isfinite().all()) for name, t in found.tensors.items() if t.is_floating_point())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ppo_world.write_world(tmp_path_factory.mktemp("nan"))


def plan_of(world: Path, output: Path, reward: str, stage: str = "ppo") -> Any:
    """Three steps with a checkpoint after each, and nobody who watches."""
    source = str(world / "reward") if reward == "reward" else f"tests.rl.planted:{reward}"
    found = ppo_world.recipe(world, output, steps=3, checkpoint_every=1, evaluate_every=3, reward=source)
    if stage != "ppo":
        found = test_group.recipe(world, output, stage, steps=3, checkpoint_every=1, evaluate_every=3)
        values = found.model_dump() | {
            "reward": [{"model": source} if reward == "reward" else {"function": source}]
        }
        found = type(found).model_validate(values)
    if reward.endswith("tokens"):
        found = type(found).model_validate(
            found.model_dump() | {"reward": [{"function": source, "dense": True}]}
        )
    return found.model_copy(update={"data": found.data.model_copy(update={"holdout": []})})


def at_second_step(patch: Patch, module: Any, spoil: Spoil) -> dict[str, Any]:
    """Harm is done just before the second step; the job, and its weights' bits as the step finds them, are filled in."""
    real, seen = module.train_step, dict[str, Any]()

    def step(job: Any, at: int) -> Any:
        if at == 1:
            spoil(job, patch)
            seen.update(job=job, before=bits(job.policy.named_parameters()))
        return real(job, at)

    patch.setattr(module, "train_step", step)
    return seen


@pytest.mark.parametrize("tensor", OF_PPO)
def test_nan_stops_ppo(tensor: str, world: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    reward, spoil = OF_PPO[tensor]
    assert_stopped(monkeypatch, PPO, plan_of(world, tmp_path / "run", reward), spoil)


@pytest.mark.parametrize(
    ("stage", "tensor"), [("grpo", tensor) for tensor in OF_GROUPS] + [("rejection", "reward model")]
)
def test_nan_stops_stages_without_a_critic(
    stage: str, tensor: str, world: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    reward, spoil = OF_GROUPS[tensor]
    assert_stopped(monkeypatch, GROUP, plan_of(world, tmp_path / "run", reward, stage), spoil)


def assert_stopped(patch: Patch, module: Any, plan: Any, spoil: Spoil) -> None:
    seen = at_second_step(patch, module, spoil)
    with pytest.raises(TrainingError) as caught:
        run_stage(plan)
    assert caught.value.exit_code == 4
    assert_same_bits(seen["before"], bits(seen["job"].policy.named_parameters()))
    assert_kept(Path(plan.output), 1)
    assert Manifest.read(Path(plan.output)).status == "failed"


@pytest.mark.parametrize("stage", ["ppo", "grpo"])
def test_an_update_that_makes_nan_is_in_no_checkpoint(
    stage: str, world: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    def spoil(job: Any, patch: Patch) -> None:
        optimizer = job.optimizer if stage == "ppo" else job.update.optimizer
        weight = norm_of(job.policy.model)
        spoiled(patch, optimizer, "step", lambda _: nan_in(weight))

    plan, module = plan_of(world, tmp_path / "run", "vowels", stage), PPO if stage == "ppo" else GROUP
    at_second_step(monkeypatch, module, spoil)
    with pytest.raises(TrainingError):
        run_stage(plan)
    assert_kept(tmp_path / "run", 1)


def in_batch(key: str) -> Callable[[StageTrainer, Any], None]:
    def spoil(trainer: StageTrainer, batches: Any) -> None:
        rows = len(batches[0]["input_ids"]) // 2
        batches[0].setdefault(key, torch.ones(rows))
        nan_in(batches[0][key])

    return spoil


OF_TRAINERS = [
    *((stage, "weights") for stage in ("pretrain", "sft", "sft-packed-lora", "reward", "dpo", "kto")),
    *((stage, "gradient") for stage in ("pretrain", "sft", "sft-packed-lora", "reward", "dpo", "kto")),
    ("reward", "margin"), ("reward", "weight"), ("dpo", "margin"), ("dpo", "weight"), ("dpo", "reference"),
    ("kto", "weight"), ("kto", "reference"), ("kto", "other_reference"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "tensor"), OF_TRAINERS)
def test_nan_stops_a_trainer(stage: str, tensor: str, tmp_path: Path, monkeypatch: Patch) -> None:
    seen: dict[str, Any] = {}
    real = StageTrainer.get_batch_samples

    def batches(trainer: StageTrainer, *args: Any) -> Any:
        found, count = real(trainer, *args)
        if trainer.state.global_step == 1:
            if tensor == "weights":
                nan_in(norm_of(trainer.model))
            elif tensor == "gradient":
                hooked(last_trained(trainer.model))
            else:
                in_batch(tensor)(trainer, found)
            seen.update(trainer=trainer, before=bits(dict(trainer.model.named_parameters())))
        return found, count

    monkeypatch.setattr(StageTrainer, "get_batch_samples", batches)
    what = "gradient" if tensor == "gradient" else "loss"
    with pytest.raises(TrainingError, match=f"the {what} of step 2 is nan") as caught:
        run_stage(STAGES[stage](tmp_path, "run"))
    assert caught.value.exit_code == 4
    assert_same_bits(seen["before"], bits(dict(seen["trainer"].model.named_parameters())))
    assert_kept(tmp_path / "run", 1)
    assert Manifest.read(tmp_path / "run").status == "failed"


@pytest.mark.parametrize(("step", "every"), [(2, 1), (STEPS, None)], ids=["in between", "the last"])
def test_a_weight_that_is_no_number_is_not_saved(
    step: int, every: int | None, tmp_path: Path, monkeypatch: Patch
) -> None:
    """No loss sees what the last update has made, nor what a checkpoint is made of."""
    real = RunCallback.on_step_end

    def ended(callback: RunCallback, args: Any, state: Any, control: Any, **more: Any) -> Any:
        if state.global_step == step:
            nan_in(last_trained(callback.trainer.model))
        return real(callback, args, state, control, **more)

    monkeypatch.setattr(RunCallback, "on_step_end", ended)
    asked = test_reward.recipe(tmp_path, steps=STEPS, checkpoint_every=every)
    with pytest.raises(TrainingError, match="a weight is no number any more"):
        run_stage(asked)
    assert not (tmp_path / "run" / "model").exists()
    if every:
        assert_kept(tmp_path / "run", step - 1)


def test_a_model_of_nan_is_not_sampled_from() -> None:
    model = tiny_model(tiny_tokenizer())
    nan_in(norm_of(model))
    with pytest.raises(TrainingError, match="samples from are no numbers"):
        sample_responses(model, [[1, 20], [1]], max_new_tokens=3, temperature=1.0, eos_id=2, pad_id=0)


def test_nan_in_a_row_is_refused_before_training(tmp_path: Path) -> None:
    asked = test_reward.recipe(tmp_path)
    pairs = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": "Say it.", "chosen": "red", "rejected": "dog", "margin": margin} for margin in (1.0, NAN)
    ]
    write_jsonl(pairs, rows)
    with pytest.raises(DataError, match=r"pairs\.jsonl:2: .*margin"):
        run_stage(asked)
