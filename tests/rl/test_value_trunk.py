"""A critic with an adapter of its own: what it says, what it learns, and what it leaves alone."""

import pytest
import torch

from aligner.errors import ModelError
from aligner.models.adapters import attach_lora
from aligner.models.backbone import Backbone, backbone_of
from aligner.models.heads import ValueHead
from aligner.models.load import LoadedModel, load_model
from aligner.recipe.model import LoraSpec, ModelSpec
from aligner.recipe.ppo import RewardSource
from aligner.rl.actors import Drawing, LanguageActor, build_optimizer
from aligner.rl.critic import value_head_of, value_trunk_of
from aligner.rl.losses import value_loss
from aligner.rl.rewards import load_rewards
from aligner.rl.seeds import generator
from aligner.rl.update import evaluate_in_parts
from tests.models.runs import save_reward, write_adapter, write_base
from tests.models.test_adapters import stirred
from tests.rl.test_actors import PROMPTS, one_update, spec
from tests.tiny import tiny_model, tiny_tokenizer

LORA = LoraSpec(rank=4, alpha=8, modules_to_save=["model.norm"])


def with_trunk(*, lora: LoraSpec | None = LORA, stir: bool = True) -> tuple[LanguageActor, Backbone]:
    model = tiny_model()
    torch.manual_seed(0)
    model = attach_lora(model, lora, "CAUSAL_LM") if lora else model
    drawing = Drawing(max_new_tokens=12, temperature=1.0, eos_id=2, pad_id=0)
    actor = LanguageActor(model, ValueHead(model.config.hidden_size), drawing)
    backbone = backbone_of(actor.reference().model, LoadedModel(model, tiny_tokenizer(), ""))
    actor.value_trunk = value_trunk_of(backbone, lora)
    if stir:
        stirred(actor.value_trunk)
        torch.nn.init.normal_(actor.value_head.linear.weight, generator=torch.Generator().manual_seed(0))
    return actor, backbone


def test_a_new_trunk_is_the_start_models_and_shares_its_weights():
    actor, backbone = with_trunk(stir=False)
    own = actor.value_trunk
    ids, mask = torch.tensor([[60, 61, 62]]), torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad():
        hidden = own([[1, 20, 21]], ids, mask, 0)
        want = tiny_model()(torch.tensor([[1, 20, 21, 60, 61]]), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(hidden, want[:, 2:5], rtol=1e-5, atol=1e-6)
    frozen = {w.data_ptr() for w in own.parameters() if not w.requires_grad}
    assert frozen <= {w.data_ptr() for w in actor.model.parameters()} & {
        w.data_ptr() for w in backbone.model.parameters()
    }
    assert not {w.data_ptr() for w in own.trained().values()} & {
        w.data_ptr() for w in actor.model.parameters()
    }


def test_values_are_those_of_the_state_before_each_token_in_any_batch_and_as_sampled():
    actor, _ = with_trunk()
    rollout = actor.sample(PROMPTS, generator(0, "rollout"))
    again = evaluate_in_parts(actor, rollout, rows_per_device=3)
    torch.testing.assert_close(rollout.values_BR, again.values_BR, rtol=1e-4, atol=1e-5)
    assert float(again.values_BR.std()) > 0.1 and not rollout.values_BR[~rollout.mask_BR].any()
    for row in (0, 2):
        ids = rollout.prompts[row] + rollout.response(row)
        with torch.no_grad():  # by the plain definition, one row without padding
            hidden = actor.value_trunk.adapter(torch.tensor([ids])).last_hidden_state
            want = actor.value_head(hidden)[0, len(rollout.prompts[row]) - 1 : -1]
        torch.testing.assert_close(again.values_BR[row][rollout.mask_BR[row]], want, rtol=1e-4, atol=1e-5)
    assert actor.sample(PROMPTS, generator(0, "rollout"), with_values=False).values_BR is None


@pytest.mark.parametrize("lora", [LORA, None])
def test_the_value_loss_never_touches_the_policy_nor_the_policys_the_critic(lora):
    actor, _ = with_trunk(lora=lora)
    rollout = actor.sample(PROMPTS, generator(0, "rollout"))
    seen = actor.evaluate(rollout.prompts, rollout.ids_BR, rollout.mask_BR)
    returns_BR = torch.ones_like(seen.values_BR)
    loss = value_loss(
        seen.values_BR, seen.values_BR.detach(), returns_BR, rollout.mask_BR, clip=0.2, num_tokens=9
    )
    loss.loss.backward()
    named = actor.named_parameters()
    touched = {name for name, weight in named.items() if weight.grad is not None and weight.grad.any()}
    assert touched and all(name.startswith("value.") for name in touched)
    assert {"value.linear.weight", "value.linear.bias"} < touched
    assert any("lora_A" in name for name in touched)
    actor.model.zero_grad(), actor.value_trunk.zero_grad(), actor.value_head.zero_grad()
    actor.evaluate(rollout.prompts, rollout.ids_BR, rollout.mask_BR).logprobs_BR.sum().backward()
    touched = {name for name, weight in named.items() if weight.grad is not None and weight.grad.any()}
    assert touched and all(name.startswith("policy.") for name in touched)


def test_the_critic_learns_at_its_own_rate_and_only_adapters_move():
    actor, backbone = with_trunk(stir=False)
    optimizer = build_optimizer(actor, spec(value_learning_rate=5e-3, learning_rate=1e-3))
    rates = {id(w): group["lr"] for group in optimizer.param_groups for w in group["params"]}
    assert {rates[id(w)] for w in actor.value_parameters()} == {5e-3}
    assert set(map(id, actor.value_parameters())) >= set(map(id, actor.value_trunk.trained().values()))
    before = [weight.detach().clone() for weight in backbone.model.parameters()]
    ups = {n: w.detach().clone() for n, w in actor.value_trunk.trained().items() if "lora_B" in n}
    reference = actor.reference()
    assert reference.value_trunk is None
    for _ in range(3):
        one_update(actor, reference)
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.model.parameters(), strict=True))
    assert any(not torch.equal(w, ups[n]) for n, w in actor.value_trunk.trained().items() if n in ups)


def test_warm_up_trains_head_and_adapter_alone():
    actor, _ = with_trunk()
    policy = {n: w.detach().clone() for n, w in actor.model.named_parameters()}
    critic = {n: w.detach().clone() for n, w in actor.critic_state().items()}
    one_update(actor, actor.reference(), value_warmup_steps=2)
    assert all(torch.equal(policy[n], w) for n, w in actor.model.named_parameters())
    assert all(not torch.equal(critic[n], w) for n, w in actor.critic_state().items())


@torch.no_grad()
def test_it_begins_as_the_reward_model_where_that_stands_on_the_same_backbone(tmp_path):
    base = write_base(tmp_path / "base")
    save_reward(tmp_path / "reward", ModelSpec(base=str(write_adapter(tmp_path / "sft", base))))
    loaded = load_model(ModelSpec(base=str(tmp_path / "sft")))
    policy = LanguageActor(loaded.model, ValueHead(32), Drawing(8, 1.0, eos_id=2, pad_id=0))
    backbone = backbone_of(policy.reference().model, loaded)
    rewards = load_rewards(
        [RewardSource(model=str(tmp_path / "reward"), weight=-2.0)], loaded.tokenizer, backbone
    )
    policy.value_trunk = value_trunk_of(backbone, None, rewards)
    policy.value_head.load_state_dict(value_head_of(rewards, policy.model).state_dict())
    prompts, ids = [[1, 20, 21], [1, 30]], torch.tensor([[60, 61, 62], [70, 71, 72]])
    got = policy.evaluate(prompts, ids, torch.ones(2, 3, dtype=torch.bool)).values_BR
    judge = rewards.parts[0].reward.model
    for row, prompt in enumerate(prompts):  # of every prefix what the reward model says of it
        so_far = [prompt + ids[row, :t].tolist() for t in range(3)]
        want = -2.0 * judge.normalised(so_far, [len(prompt)] * 3)
        torch.testing.assert_close(got[row], want, rtol=1e-4, atol=1e-5)
    mine = {w.data_ptr() for w in policy.value_trunk.trained().values()}
    assert mine and not mine & {
        w.data_ptr() for w in judge.model.parameters()
    }  # a copy: the reward stays as it is


def test_elsewhere_the_head_alone_begins_as_the_reward_models(tmp_path):
    base = write_base(tmp_path / "base")
    save_reward(tmp_path / "whole", ModelSpec(base=str(base)))
    actor, backbone = with_trunk(stir=False)
    rewards = load_rewards([RewardSource(model=str(tmp_path / "whole"))], tiny_tokenizer(), backbone)
    trunk = value_trunk_of(backbone, LoraSpec(rank=2), rewards)
    ups = [weight for name, weight in trunk.trained().items() if "lora_B" in name]
    assert (
        ups
        and not any(weight.any() for weight in ups)
        and value_head_of(rewards, actor.model).linear.weight.any()
    )
    with pytest.raises(ModelError, match="no layer is named"):
        value_trunk_of(backbone, LoraSpec(targets=["nowhere"]))
