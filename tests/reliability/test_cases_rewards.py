"""Cases 29 to 35 of forty ways in which alignment runs have failed elsewhere: reward models and PPO."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aligner.errors import Interrupted, TrainingError
from aligner.models.heads import RewardModel
from aligner.recipe.model import LoraSpec, ModelSpec
from aligner.recipe.ppo import GuardSpec, MissingEosSpec
from aligner.rl.finite import Stopped
from aligner.rl.guards import Guards
from aligner.rl.rollout import Rollout
from aligner.rl.score import score
from aligner.rl.update import prepare, update
from tests.models.runs import SEQUENCES, save_reward, write_base
from tests.models.test_heads import LENGTHS, scorer
from tests.models.test_heads import SEQUENCES as PADDED
from tests.models.test_sample import ending_model, make_prompts, sampled
from tests.reliability.worlds import STAGES, digests
from tests.rl.test_actors import PROMPTS, actor, one_update
from tests.rl.test_update import adam, scene, spec
from tests.stages.ppo_world import interrupt_in, run_it
from tests.tiny import tiny_tokenizer


@torch.no_grad()
def test_case_29_a_score_does_not_depend_on_the_batch() -> None:
    reward = scorer()
    alone = torch.cat([reward.score([row], [length]) for row, length in zip(PADDED, LENGTHS, strict=True)])
    for size in (1, 2, 4):
        torch.testing.assert_close(reward.score(PADDED, LENGTHS, batch_size=size), alone, atol=1e-5, rtol=0)
    reward.model.config.pad_token_id = 2  # a wrong setting changes nothing
    torch.testing.assert_close(reward.score(PADDED, LENGTHS), alone, atol=1e-5, rtol=0)


def test_case_30_a_score_head_is_not_lost_with_lora(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    before = save_reward(tmp_path / "reward", ModelSpec(base=str(base), lora=LoraSpec(rank=2, alpha=4)))
    after = RewardModel.from_folder(tmp_path / "reward").score(SEQUENCES, [1] * len(SEQUENCES))
    assert torch.equal(after, before)


def test_case_31_the_models_own_sampling_settings_change_nothing() -> None:
    model, prompts = ending_model(), make_prompts(8)
    before = sampled(model, prompts)
    model.generation_config.update(top_k=2, top_p=0.5, temperature=0.1, repetition_penalty=9.0, min_p=0.9)
    after = sampled(model, prompts)
    assert torch.equal(before.ids_BR, after.ids_BR) and torch.equal(before.logprobs_BR, after.logprobs_BR)


def test_case_32_the_ratio_begins_at_one() -> None:
    tokenizer = tiny_tokenizer()
    policy = actor(tokenizer, lora=True)  # with a dropout of 0.5
    _, stats = one_update(policy, policy.reference())
    assert stats.ratio_first_error < 1e-4
    tabular, scored = scene()
    with torch.no_grad():
        tabular.logits[0, 0] += 0.01  # not the policy that sampled
    with pytest.raises(TrainingError, match="before the first optimiser step"):
        update(tabular, adam(tabular), scored, spec(), seed=0, step=0)


def test_case_33_the_reference_is_the_start_model_and_stays_it() -> None:
    tokenizer = tiny_tokenizer()
    policy = actor(tokenizer, lora=True)
    reference = policy.reference()
    ids = torch.tensor([PROMPTS[2]])
    with torch.no_grad():
        before = reference.model(ids).logits
    scored, _ = one_update(policy, reference)
    assert float(scored.kl_B.abs().max()) < 1e-4  # KL(policy, reference) at the start
    for _ in range(3):
        one_update(policy, reference)
    with torch.no_grad():
        assert torch.equal(reference.model(ids).logits, before)


def test_case_34_the_score_stands_on_the_last_token_and_guards_stop() -> None:
    eos, pad = 2, 0
    ids = torch.tensor([[5, eos, pad, pad], [5, 6, 7, 8]])
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    rollout = Rollout([[1]] * 2, ids, mask, torch.zeros(2, 4), torch.tensor([True, False]))
    found = score(
        rollout,
        torch.tensor([3.0, 4.0]),
        torch.zeros(2, 4),
        kl_coef=0.0,
        missing_eos=MissingEosSpec(mode="replace", value=-1.0),
    )
    assert found.rewards_BR.tolist() == [[0, 3, 0, 0], [0, 0, 0, -1]]
    policy, scored = scene()
    rules = Guards(GuardSpec.model_validate({"length": {"limit": 2, "act": "stop"}, "zero_gradient": "warn"}))
    with pytest.raises(Stopped, match="as long as at the first step"):
        rules.check(prepare(policy, replace(scored), spec()), kl_nats=0.0, length_ratio=2.5)


def test_case_35_ppo_resumes_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = STAGES["ppo"](tmp_path, "straight")
    run_it(straight)
    broken = STAGES["ppo"](tmp_path, "broken")
    with monkeypatch.context() as patch:
        interrupt_in(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match="stopped at step 3"):
            run_it(broken)
    torch.manual_seed(99)
    run_it(broken)
    assert digests(tmp_path / "broken") == digests(tmp_path / "straight")
