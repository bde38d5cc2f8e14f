"""The roles over a real, tiny language model."""

import copy

import pytest
import torch

from aligner.errors import ModelError
from aligner.models.adapters import attach_lora
from aligner.models.fast import hasten
from aligner.models.heads import ValueHead
from aligner.recipe.model import LoraSpec
from aligner.recipe.ppo import MissingEosSpec, PpoSpec
from aligner.rl.actors import Drawing, LanguageActor, build_optimizer
from aligner.rl.score import score
from aligner.rl.seeds import generator
from aligner.rl.update import evaluate_in_parts, update
from tests.tiny import tiny_model, tiny_tokenizer

PROMPTS = [[1, 20, 21, 22], [1, 30], [1, 40, 41, 42, 43, 44, 45], [1, 50, 51]] * 4


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def actor(tokenizer, *, lora=False, temperature=0.7):
    model = tiny_model(tokenizer)
    torch.manual_seed(0)
    if lora:
        model = attach_lora(model, LoraSpec(rank=4, alpha=8, dropout=0.5), "CAUSAL_LM")
    drawing = Drawing(
        max_new_tokens=12,
        temperature=temperature,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
    )
    return LanguageActor(model.train(), ValueHead(model.config.hidden_size), drawing)


def spec(**changes):
    return PpoSpec(
        **(
            {"steps": 10, "prompts_per_step": 16, "epochs": 2, "minibatches": 2, "learning_rate": 1e-2}
            | changes
        )
    )


@pytest.mark.parametrize("lora", [False, True])
def test_the_values_of_a_rollout_are_those_of_a_full_pass(tokenizer, lora):
    policy = actor(tokenizer, lora=lora)
    with torch.no_grad():
        policy.value_head.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    rollout = policy.sample(PROMPTS, generator(0, "rollout"))
    again = evaluate_in_parts(policy, rollout, rows_per_device=None)
    assert again.values_BR.abs().max() > 0.5
    torch.testing.assert_close(rollout.values_BR, again.values_BR, atol=5e-5, rtol=0)
    some = rollout.select(torch.tensor([5, 2]))
    assert torch.equal(some.values_BR, rollout.values_BR[[5, 2], : some.mask_BR.shape[1]])


def one_update(policy, reference, **changes):
    rollout = policy.sample(PROMPTS, generator(0, "rollout"))
    seen = evaluate_in_parts(reference, rollout, rows_per_device=None)
    scores_B = (rollout.ids_BR % 2 == 0).float().mean(1)
    scored = score(
        rollout,
        scores_B,
        seen.logprobs_BR,
        kl_coef=0.1,
        missing_eos=MissingEosSpec(mode="subtract", value=0.0),
    )
    rate = changes.pop("rate", 1e-2)
    optimizer = build_optimizer(policy, spec(**changes))
    for group in optimizer.param_groups:
        group["lr"] = rate
    return scored, update(policy, optimizer, scored, spec(**changes), seed=0, step=0)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_sampler_and_the_forward_pass_agree(tokenizer, lora, temperature):
    policy = actor(tokenizer, lora=lora, temperature=temperature)
    rollout = policy.sample(PROMPTS, generator(0, "rollout"))
    seen = evaluate_in_parts(policy, rollout, rows_per_device=3)
    torch.testing.assert_close(
        seen.logprobs_BR, torch.where(rollout.mask_BR, rollout.logprobs_BR, 0.0), rtol=0, atol=1e-5
    )
    assert float(seen.values_BR.abs().max()) == 0.0


@pytest.mark.parametrize("lora", [False, True])
def test_reference_starts_equal_stays_and_shares_what_is_frozen(tokenizer, lora):
    policy = actor(tokenizer, lora=lora)
    reference = policy.reference()
    before = copy.deepcopy(reference.model.state_dict())
    scored, stats = one_update(policy, reference)
    assert float(scored.kl_B.abs().max()) < 1e-4 and stats.ratio_first_error < 1e-4
    assert all(torch.equal(before[name], weight) for name, weight in reference.model.state_dict().items())
    assert not any(weight.requires_grad for weight in reference.model.parameters())
    later, _ = one_update(policy, reference)
    assert float(later.kl_B.abs().max()) > 1e-3
    mine, its = dict(policy.model.named_parameters()), dict(reference.model.named_parameters())
    assert {name for name in mine if mine[name] is its[name]} == (
        {n for n in mine if "lora" not in n} if lora else set()
    )


def test_dropout_is_off(tokenizer):
    policy = actor(tokenizer, lora=True)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    rollout = policy.sample(PROMPTS, generator(0, "rollout"))
    first, second = (evaluate_in_parts(policy, rollout, rows_per_device=None) for _ in range(2))
    assert torch.equal(first.logprobs_BR, second.logprobs_BR)
    assert not any(module.training for module in policy.model.modules())


def test_without_a_learning_rate_nothing_moves(tokenizer):
    policy = actor(tokenizer)
    before = {name: weight.detach().clone() for name, weight in policy.named_parameters().items()}
    _, stats = one_update(policy, policy.reference(), rate=0.0)
    assert all(torch.equal(before[name], weight) for name, weight in policy.named_parameters().items())
    assert abs(stats.kl_old_nats) < 1e-8 and stats.clip_share == 0.0


def test_the_value_head_learns_and_has_its_own_rate(tokenizer):
    policy = actor(tokenizer)
    optimizer = build_optimizer(policy, spec(learning_rate=1e-3, value_learning_rate=5e-3))
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-3, 5e-3]
    assert [len(group["params"]) for group in optimizer.param_groups][2] == 2
    assert all(group["eps"] == 1e-5 for group in optimizer.param_groups)
    one_update(policy, policy.reference())
    assert float(policy.value_head.linear.weight.detach().abs().max()) > 0


def test_the_gains_of_a_norm_can_be_trained_at_their_own_rate_and_sharpen_what_is_said(tokenizer):
    lora = LoraSpec(rank=2, modules_to_save=["model.norm"])
    model = attach_lora(tiny_model(tokenizer), lora, "CAUSAL_LM")
    policy = LanguageActor(model, ValueHead(model.config.hidden_size), actor(tokenizer).drawing)
    optimizer = build_optimizer(policy, spec(learning_rate=1e-3, gain_learning_rate=0.5))
    gains = [(g["lr"], g["params"]) for g in optimizer.param_groups if g["lr"] == 0.5]
    assert [[weight.shape for weight in weights] for _, weights in gains] == [
        [torch.Size([model.config.hidden_size])]
    ]
    reference, rollout = policy.reference(), policy.sample(PROMPTS, generator(0, "rollout"))
    with torch.no_grad():
        gains[0][1][0].mul_(2.0)  # logits twice as large: a temperature of one half
    seen = evaluate_in_parts(policy, rollout, rows_per_device=None)
    first = evaluate_in_parts(reference, rollout, rows_per_device=None)
    assert float(seen.entropy_BR.sum()) < float(first.entropy_BR.sum())
    torch.testing.assert_close(
        first.logprobs_BR, torch.where(rollout.mask_BR, rollout.logprobs_BR, 0.0), rtol=0, atol=1e-5
    )


def test_a_rate_for_gains_needs_gains(tokenizer):
    with pytest.raises(ModelError, match="no vector is trained"):
        build_optimizer(actor(tokenizer, lora=True), spec(gain_learning_rate=0.1))


def test_entropy_has_a_gradient_only_where_it_is_asked_for(tokenizer):
    plain = actor(tokenizer)
    asked = LanguageActor(plain.model, plain.value_head, plain.drawing, entropy_gradient=True)
    prompt, answer = [1, 20, 21], [60, 61, 62]
    ids, mask = torch.tensor([answer]), torch.ones(1, 3, dtype=torch.bool)
    assert not plain.evaluate([prompt], ids, mask).entropy_BR.requires_grad
    asked.evaluate([prompt], ids, mask).entropy_BR.sum().backward()
    weight = plain.model.get_output_embeddings().weight
    got, weight.grad = weight.grad.clone(), None
    logits = plain.model(torch.tensor([prompt + answer])).logits[0, 2:5] / 0.7
    torch.distributions.Categorical(logits=logits).entropy().sum().backward()
    torch.testing.assert_close(got, weight.grad, rtol=1e-4, atol=1e-6)


def test_values_are_those_of_the_state_before_each_token(tokenizer):
    policy = actor(tokenizer)
    torch.nn.init.normal_(policy.value_head.linear.weight)
    ids = torch.tensor([[60, 61, 62]])
    with torch.no_grad():
        got = policy.evaluate([[1, 20, 21]], ids, torch.ones(1, 3, dtype=torch.bool)).values_BR
        hidden = policy.model(
            input_ids=torch.tensor([[1, 20, 21, 60, 61, 62]]), output_hidden_states=True
        ).hidden_states[-1]
        torch.testing.assert_close(got, policy.value_head(hidden[:, 2:5]), rtol=1e-4, atol=1e-5)


def test_switched_off_the_adapter_is_the_start_model_after_twenty_updates(tokenizer):
    policy = actor(tokenizer, lora=True)
    start = hasten(tiny_model(tokenizer))  # bit by bit, so by the same kernels
    frozen = {n: w.detach().clone() for n, w in policy.model.named_parameters() if not w.requires_grad}
    reference = policy.reference()
    for _ in range(10):
        one_update(policy, reference)  # two optimiser steps an epoch, two epochs
    ids = torch.tensor([[1, 20, 21, 60, 61]])
    with torch.no_grad(), policy.model.disable_adapter():
        torch.testing.assert_close(
            policy.model(ids).logits, start(ids).logits, rtol=0, atol=1e-6
        )  # other kernels
    assert all(torch.equal(frozen[n], w) for n, w in policy.model.named_parameters() if n in frozen)
    with torch.no_grad():
        on = policy.model(ids).logits
        assert not torch.allclose(on, start(ids).logits, atol=1e-3)
        torch.testing.assert_close(reference.model(ids).logits, start(ids).logits)
        merged = copy.deepcopy(policy.model).merge_and_unload()
        torch.testing.assert_close(merged(ids).logits, on, rtol=0, atol=1e-5)
