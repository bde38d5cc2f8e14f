"""The critic's beginning: the score head of the reward model where it fits, and steps that train it alone."""

import copy

import pytest
import torch

from aligner.errors import ModelError
from aligner.models.heads import RewardStats, write_stats
from aligner.models.load import LoadedModel, save_model
from aligner.models.scoring import Scoring
from aligner.recipe.model import LoraSpec, ModelSpec
from aligner.recipe.ppo import RewardSource
from aligner.rl.actors import Drawing, LanguageActor
from aligner.rl.critic import value_head_of
from aligner.rl.rewards import load_rewards
from aligner.rl.update import update
from tests.models.runs import save_reward, write_base
from tests.rl.test_update import adam, scene, spec
from tests.tiny import tiny_model, tiny_tokenizer


def rewards_of(folder, weight=1.0):
    return load_rewards([RewardSource(model=str(folder), weight=weight)], tiny_tokenizer())


@torch.no_grad()
@pytest.mark.parametrize("lora", [None, LoraSpec(rank=2, alpha=4)])
def test_a_value_is_the_reward_models_score_of_what_was_said_so_far(tmp_path, lora):
    save_reward(tmp_path / "run", ModelSpec(base=str(write_base(tmp_path / "base")), lora=lora))
    rewards = rewards_of(tmp_path / "run", weight=-2.0)
    judge = rewards.parts[0].reward.model
    policy = tiny_model()
    head = value_head_of(rewards, policy)
    # the policy stands on the reward model's own trunk, so that their hidden states are the same
    inner = judge.model.get_base_model().model if lora else judge.model.model
    policy.model = inner
    drawing = Drawing(max_new_tokens=4, temperature=1.0, eos_id=2, pad_id=0)
    actor = LanguageActor(policy, head, drawing)
    prompts, ids = [[1, 20, 21], [1, 30]], torch.tensor([[60, 61, 62], [70, 71, 72]])
    got = actor.evaluate(prompts, ids, torch.ones(2, 3, dtype=torch.bool)).values_BR
    for row, prompt in enumerate(prompts):
        so_far = [prompt + ids[row, :t].tolist() for t in range(3)]
        want = -2.0 * judge.normalised(so_far, [len(prompt)] * 3)
        torch.testing.assert_close(got[row], want, rtol=1e-4, atol=1e-5)
    assert float(got.std()) > 0.03


def test_what_does_not_fit_is_refused_with_the_reason(tmp_path):
    save_reward(tmp_path / "run", ModelSpec(base=str(write_base(tmp_path / "base"))))
    for other, word in (
        (tiny_model(hidden=48), "hidden_size 32, the policy 48"),
        (tiny_model(layers=3), "num_hidden_layers 2, the policy 3"),
        (tiny_model(architecture="qwen3"), "model_type llama, the policy qwen3"),
    ):
        with pytest.raises(ModelError, match=word):
            value_head_of(rewards_of(tmp_path / "run"), other)
    judge = LoadedModel(tiny_model(), tiny_tokenizer(), "")
    save_model(judge, tmp_path / "likelihood", base_folder=tmp_path)
    write_stats(tmp_path / "likelihood", RewardStats(-5.0, 2.0, 10, Scoring("likelihood", 0.1)))
    with pytest.raises(ModelError, match="scores by its likelihood"):
        value_head_of(rewards_of(tmp_path / "likelihood"), tiny_model())


def test_warm_up_steps_train_the_critic_alone():
    policy, scored = scene()
    before = copy.deepcopy(policy.state_dict())
    optimizer, plan = adam(policy), spec(value_warmup_steps=2)
    for step in (0, 1):
        stats = update(policy, optimizer, scored, plan, seed=0, step=step)
        assert torch.equal(policy.logits, before["logits"]) and stats.ratio_first_error < 1e-6
        assert stats.kl_old_nats == pytest.approx(0.0, abs=1e-9)
    assert not torch.equal(policy.values, before["values"])
    assert policy.logits not in optimizer.state
    # the critic has learnt: it explains more of the returns than at the start, where it says 0
    third = update(policy, optimizer, scored, plan, seed=0, step=2)
    assert third.explained_variance > 0.2
    assert not torch.equal(policy.logits, before["logits"])


def test_the_critics_steps_are_the_same_with_the_policy_waiting_or_not():
    # A tabular critic shares nothing with its policy, so its first update is the plain one's.
    values = []
    for steps in (0, 1):
        policy, scored = scene()
        plan = spec(value_warmup_steps=steps, max_grad_norm=1e9)
        update(policy, adam(policy), scored, plan, seed=0, step=0)
        values.append(policy.values.detach().clone())
    assert torch.equal(values[0], values[1])
