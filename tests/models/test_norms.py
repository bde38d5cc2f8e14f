"""The fast norm against transformers' own and autograd in float64."""

import pytest
import torch
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from aligner.models.fast import hasten
from aligner.models.norms import FastNorm, is_rms_norm


def stirred_norm(kind: type[torch.nn.Module]) -> torch.nn.Module:
    torch.manual_seed(0)
    norm = kind(24, eps=1e-3)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(24))
    return norm


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Qwen3RMSNorm])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_those_of_transformers(kind: type[torch.nn.Module], dtype: torch.dtype):
    plain, fast = stirred_norm(kind), hasten(torch.nn.Sequential(stirred_norm(kind)))[0]
    assert type(fast) is FastNorm
    x, weights = torch.randn(3, 5, 24).to(dtype), torch.randn(3, 5, 24)
    found = []
    for norm in (plain, fast):
        here = x.clone().requires_grad_()
        y = norm(here)
        (y.float() * weights).sum().backward()
        found.append((y.detach(), here.grad, norm.weight.grad))
    rough = {"atol": 0.05, "rtol": 0.02} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    for want, got in zip(*found, strict=True):
        assert got.dtype == want.dtype
        torch.testing.assert_close(got, want, **rough)


def test_the_gradient_is_the_derivative():
    norm = hasten(stirred_norm(LlamaRMSNorm))
    x, direction = torch.randn(2, 24, requires_grad=True), torch.randn(2, 24)
    (norm(x) * direction).sum().backward()

    def loss(at: torch.Tensor) -> torch.Tensor:
        at, weight = at.double(), norm.weight.double()
        return (weight * at / (at.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt() * direction).sum()

    again = x.detach().double().requires_grad_()
    loss(again).backward()
    torch.testing.assert_close(x.grad.double(), again.grad, atol=1e-5, rtol=1e-5)


def test_norms_of_another_formula_are_left_alone():
    """Gemma's weight is what is added to 1."""
    assert not is_rms_norm(stirred_norm(GemmaRMSNorm))
    assert not is_rms_norm(torch.nn.LayerNorm(24)) and not is_rms_norm(torch.nn.Linear(4, 4, bias=False))
    assert type(hasten(stirred_norm(GemmaRMSNorm))) is GemmaRMSNorm


def test_a_frozen_weight_gets_no_gradient():
    norm = hasten(stirred_norm(LlamaRMSNorm)).requires_grad_(False)
    x = torch.randn(4, 24, requires_grad=True)
    norm(x).sum().backward()
    assert norm.weight.grad is None and x.grad is not None
