"""Fast linear layers against PEFT's own, torch's own, and autograd on the formula."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from aligner.models.adapters import attach_lora, merge_adapter
from aligner.models.fast import hasten
from aligner.models.linear import FastLinear, FastLora, held_weights, product
from aligner.recipe.model import LoraSpec
from tests.models.test_adapters import stirred
from tests.tiny import tiny_model

IDS = torch.arange(6, 46).reshape(4, 10)


def adapted(architecture: str = "llama", **spec: object) -> nn.Module:
    """A tiny model with an adapter that changes something."""
    return stirred(
        attach_lora(tiny_model(architecture=architecture), LoraSpec(rank=4, **spec), "CAUSAL_LM")
    ).eval()


def logits_and_gradients(
    model: nn.Module, *, autocast: bool = False
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(IDS).logits
    weights = torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)
    (logits.float() * weights).sum().backward()
    return logits.detach(), {n: w.grad.clone() for n, w in model.named_parameters() if w.requires_grad}


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "qwen3"])  # gpt_neox has biases
@pytest.mark.parametrize("lora", [True, False])
def test_logits_and_gradients_are_those_of_the_plain_layers(architecture: str, lora: bool):
    plain = adapted(architecture) if lora else tiny_model(architecture=architecture).train()
    fast = hasten(copy.deepcopy(plain))
    assert any(type(m) is (FastLora if lora else FastLinear) for m in fast.modules())
    (want, want_grads), (got, got_grads) = logits_and_gradients(plain), logits_and_gradients(fast)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert got_grads.keys() == want_grads.keys() and len(got_grads) > 4
    for name, gradient in want_grads.items():
        torch.testing.assert_close(got_grads[name], gradient, atol=2e-4, rtol=2e-4)


def test_bf16_is_no_further_from_float32_than_peft_is():
    plain = adapted()
    fast = hasten(copy.deepcopy(plain))
    exact, exact_grads = logits_and_gradients(plain)
    theirs, their_grads = logits_and_gradients(plain, autocast=True)
    ours, our_grads = logits_and_gradients(fast, autocast=True)
    assert (ours - exact).abs().mean() < 1.2 * (theirs - exact).abs().mean()
    for name, want in exact_grads.items():
        assert our_grads[name].dtype == torch.float32
        assert (our_grads[name] - want).norm() < 1.5 * (their_grads[name] - want).norm() + 0.02 * want.norm()


@pytest.mark.parametrize("autocast", [False, True])
def test_held_weights_give_the_same_and_leave_nothing_behind(autocast: bool):
    model = hasten(adapted("gpt_neox"))
    before = set(model.state_dict())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        want = model(IDS).logits
        with held_weights(model):
            got = model(IDS).logits
            held = [m for m in model.modules() if getattr(m, "held", None) is not None]
    assert torch.equal(got, want)
    assert {type(m) for m in held} == {FastLora, FastLinear}  # the head has no adapter
    inner = {m.base_layer for m in held if isinstance(m, FastLora)}
    assert not inner & set(held)  # one sum a layer, and not its parts too
    assert (
        all(getattr(m, "held", None) is None for m in model.modules()) and set(model.state_dict()) == before
    )


def test_a_weight_changed_after_it_was_held_counts_again():
    model = hasten(adapted())
    with torch.no_grad():
        with held_weights(model):
            first = model(IDS).logits
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.mul_(3)
        assert not torch.allclose(model(IDS).logits, first, atol=1e-3)


def test_adapters_off_dropout_and_merging_are_pefts():
    plain = adapted(dropout=0.5)
    fast, base = hasten(copy.deepcopy(plain)), tiny_model()
    with torch.no_grad(), fast.disable_adapter(), held_weights(fast):
        torch.testing.assert_close(fast(IDS).logits, base(IDS).logits, atol=1e-5, rtol=1e-5)
    fast.train(), plain.train()
    torch.manual_seed(0)
    want = plain(IDS).logits
    torch.manual_seed(0)
    torch.testing.assert_close(fast(IDS).logits, want, atol=1e-5, rtol=1e-5)  # the same draws: PEFT's own way
    fast.eval()
    want = fast(IDS).logits.detach()
    torch.testing.assert_close(merge_adapter(fast)(IDS).logits, want, atol=1e-4, rtol=1e-4)


def test_odd_adapters_stay_pefts():
    """DoRA has a norm of its own, and two adapters at once are no single sum."""
    dora = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"], use_dora=True))
    two = adapted()
    two.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    two.base_model.set_adapter(["default", "second"])
    for plain in (dora.eval(), two.eval()):
        fast = hasten(copy.deepcopy(plain))
        with torch.no_grad(), held_weights(fast):
            torch.testing.assert_close(fast(IDS).logits, plain(IDS).logits, atol=1e-5, rtol=1e-5)


def test_products_of_any_layout():
    x, weight, bias = torch.randn(3, 5, 16), torch.randn(16, 7).T, torch.randn(7)
    torch.testing.assert_close(product(x, weight, bias), x @ weight.T + bias, atol=1e-5, rtol=1e-5)
    spread = torch.ones(1, 1, 1).expand(3, 5, 16)  # what backward of a sum hands on
    torch.testing.assert_close(product(spread, weight), spread @ weight.T, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(product(x[:, -1:], weight), x[:, -1:] @ weight.T, atol=1e-5, rtol=1e-5)
    assert product(x[:, :0], weight).shape == (3, 0, 7)
