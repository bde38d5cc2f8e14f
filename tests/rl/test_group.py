"""RLOO's and GRPO's advantages and losses: by hand, and equal to TRL's trainers on the same rollouts."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from aligner.models.heads import ValueHead
from aligner.models.padding import left_padded
from aligner.recipe.group import GrpoRecipe, RlooRecipe
from aligner.rl.actors import Drawing, LanguageActor
from aligner.rl.group import best_of_group, group_relative, grpo_loss, leave_one_out, rloo_loss, token_weights
from aligner.rl.group_update import GroupBatch, GroupUpdate, policy_optimizer, policy_weights
from aligner.rl.rollout import Rollout
from tests.tiny import tiny_model, tiny_tokenizer

GROUP, PROMPTS = 4, 2
SHARED = {"steps": 20, "prompts_per_step": PROMPTS, "samples_per_prompt": GROUP, "learning_rate": 1e-3}


def recipe(stage: str, **numbers: Any) -> GrpoRecipe | RlooRecipe:
    kind = GrpoRecipe if stage == "grpo" else RlooRecipe
    return kind.model_validate(
        {
            "stage": stage,
            "output": "unused",
            "model": {"base": "unused"},
            "reward": [{"function": "tests.rl.planted:vowels"}],
            "data": {"train": [{"path": "unused"}]},
            "sampling": {"max_new_tokens": 6},
            stage: {**SHARED, **numbers},
        }
    )


def test_leave_one_out_by_hand() -> None:
    rewards_6 = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    assert leave_one_out(rewards_6, 3).tolist() == [-3.0, -1.5, 4.5, 0.0, 0.0, 0.0]
    white = leave_one_out(rewards_6, 3, whiten=True)
    assert abs(float(white.mean())) < 1e-6 and float(white.std()) == pytest.approx(1, rel=1e-3)


def test_group_relative_by_hand() -> None:
    rewards_4 = torch.tensor([1.0, 3.0, 5.0, 5.0])
    by_group = 1 / (math.sqrt(2) + 1e-4)
    assert group_relative(rewards_4, 2, scale="group").tolist() == pytest.approx([-by_group, by_group, 0, 0])
    assert group_relative(rewards_4, 2, scale="none").tolist() == [-1.0, 1.0, 0.0, 0.0]
    deviation = math.sqrt(((1 - 3.5) ** 2 + (3 - 3.5) ** 2 + 2 * 1.5**2) / 3) + 1e-4
    assert group_relative(rewards_4, 2, scale="batch").tolist() == pytest.approx(
        [-1 / deviation, 1 / deviation, 0, 0]
    )


def test_rloo_cuts_the_ratio_of_the_whole_response() -> None:
    new_BR = torch.tensor([[math.log(1.1), math.log(1.2)], [math.log(1.1), 7.0]], requires_grad=True)
    mask_BR = torch.tensor([[True, True], [True, False]])
    found = rloo_loss(new_BR, torch.zeros(2, 2), torch.tensor([1.0, -2.0]), mask_BR, clip=0.2, episodes=4)
    assert float(found.loss) == pytest.approx((-1.2 + 2 * 1.1) / 4) and float(found.clip_share) == 0.25
    assert float(found.ratio_error) == pytest.approx(0.2)
    found.loss.backward()
    assert new_BR.grad is not None
    assert new_BR.grad[0].tolist() == [0, 0] and new_BR.grad[1].tolist() == pytest.approx([2 * 1.1 / 4, 0])


def test_grpo_cuts_the_ratio_of_each_token_and_pays_for_k3() -> None:
    new_BR = torch.tensor([[math.log(1.5), math.log(1.1)]])
    ref_BR, mask_BR = torch.tensor([[0.0, 9.0]]), torch.tensor([[True, False]])
    kl = 1 / 1.5 - 1 + math.log(1.5)
    found = grpo_loss(
        new_BR,
        torch.zeros(1, 2),
        ref_BR,
        torch.tensor([1.0]),
        mask_BR,
        torch.tensor([0.5]),
        clip=0.2,
        kl_coef=0.3,
        num_tokens=1,
    )
    assert (
        float(found.loss) == pytest.approx(0.5 * (-1.2 + 0.3 * 1.5 * kl)) and float(found.clip_share) == 1.0
    )


def test_the_best_of_each_group_by_hand() -> None:
    scores_6 = torch.tensor([1.0, 3.0, 3.0, 5.0, 4.0, 6.0])
    assert best_of_group(scores_6, 3, 1).tolist() == [1, 5]
    assert best_of_group(scores_6, 3, 2).tolist() == [1, 2, 3, 5]


def test_what_a_token_counts() -> None:
    mask_BR = torch.tensor([[True, True, True], [True, False, False]])
    assert token_weights(mask_BR, loss="dapo", max_new_tokens=6).tolist() == [0.25, 0.25]
    assert token_weights(mask_BR, loss="grpo", max_new_tokens=6).tolist() == pytest.approx([1 / 6, 1 / 2])
    assert token_weights(mask_BR, loss="dr_grpo", max_new_tokens=6).tolist() == pytest.approx([1 / 12] * 2)


def trl_trainer(stage: str, model: Any, folder: Path, numbers: dict[str, Any]) -> Any:
    """TRL's trainer around this model; only its loss is asked."""
    kind, config = (GRPOTrainer, GRPOConfig) if stage == "grpo" else (RLOOTrainer, RLOOConfig)
    args = config(
        output_dir=str(folder),
        per_device_train_batch_size=GROUP * PROMPTS,
        num_generations=GROUP,
        max_completion_length=6,
        beta=0.0,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        **({"loss_type": numbers["loss"]} if stage == "grpo" else {}),
    )
    trainer = kind(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": "Say it."}] * 8),
        processing_class=tiny_tokenizer(),
    )
    trainer.beta = numbers["kl_coef"]  # set late, or it would look for its reference on the Hub
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def trl_inputs(batch: GroupBatch) -> dict[str, Tensor]:
    rollout = batch.rollout
    ids_BT, mask_BT = left_padded(rollout.prompts, pad_id=0, device=torch.device("cpu"))
    return {
        "prompt_ids": ids_BT,
        "prompt_mask": mask_BT.long(),
        "completion_ids": rollout.ids_BR,
        "completion_mask": rollout.mask_BR.long(),
        "advantages": batch.advantages_B,
        "old_per_token_logps": batch.old_logprobs_BR,
        "old_logps": batch.old_logprobs_BR.sum(dim=1),
        "ref_per_token_logps": batch.ref_logprobs_BR,
        "num_items_in_batch": rollout.mask_BR.sum(),
    }


def actor_of(model: Any) -> LanguageActor:
    tokenizer = tiny_tokenizer()
    drawing = Drawing(6, 1.0, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return LanguageActor(model, ValueHead(32), drawing)


def sampled(actor: LanguageActor, reference: LanguageActor, step: int) -> tuple[Rollout, Tensor]:
    """A rollout to prompts of unequal lengths, and the reference's log-probabilities."""
    prompts = [list(range(20 + step, 20 + step + 3 + 4 * (i // GROUP))) for i in range(GROUP * PROMPTS)]
    rollout = actor.sample(prompts, torch.Generator().manual_seed(step))
    with torch.no_grad():
        seen = reference.evaluate(prompts, rollout.ids_BR, rollout.mask_BR).logprobs_BR
    return rollout, seen


@pytest.mark.parametrize(
    ("stage", "numbers"),
    [
        ("rloo", {"kl_coef": 0.1}),
        ("grpo", {"kl_coef": 0.1, "loss": "dapo"}),
        ("grpo", {"kl_coef": 0.1, "loss": "grpo"}),
        ("grpo", {"kl_coef": 0.1, "loss": "dr_grpo"}),
    ],
)
def test_twenty_steps_are_those_of_trl(stage: str, numbers: dict[str, Any], tmp_path: Path) -> None:
    plan = recipe(stage, rows_per_device=3, **numbers)
    ours, start = actor_of(tiny_model()), actor_of(tiny_model())
    theirs = copy.deepcopy(ours.model)
    trainer = trl_trainer(stage, theirs, tmp_path, numbers)
    weights = policy_weights(ours)
    update = GroupUpdate(plan, ours, weights, policy_optimizer(weights, plan.numbers, stage))
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-3, eps=1e-5)
    for step in range(10):
        rollout, reference_BR = sampled(ours, start, step)
        rewards_B = torch.randn(GROUP * PROMPTS, generator=torch.Generator().manual_seed(step))
        batch = GroupBatch(rollout, rollout.logprobs_BR, reference_BR, rewards_B)
        for _ in range(2):  # the second time the ratio is not 1
            found = update._accumulate(batch)
            optimizer.zero_grad()
            loss = trainer._compute_loss(theirs, trl_inputs(batch))
            loss.backward()
            assert found.policy_loss == pytest.approx(
                float(loss), rel=1e-6, abs=5e-6
            )  # float32, other kernels
            update.optimizer.step()
            optimizer.step()
    for (name, one), other in zip(ours.model.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5), name
