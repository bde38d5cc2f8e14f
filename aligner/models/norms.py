"""RMS norms by a handful of passes over their input, where transformers makes ten and autograd twice as many.

N = tokens, D = hidden size.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class FastNorm(nn.Module):
    """weight x / sqrt(mean(x^2) + eps) over the last axis, in float32, as Llama, Qwen and Mistral have it."""

    weight: nn.Parameter
    variance_epsilon: float

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D) in float32."""
        return _RmsNorm.apply(x, self.weight, self.variance_epsilon)


@torch.no_grad()
def is_rms_norm(module: nn.Module) -> bool:
    """Whether a module computes what `FastNorm` does: it is asked, since some norms of the name add 1 to the weight."""
    names = [name for name, _ in module.named_parameters()]
    if names != ["weight"] or not hasattr(module, "variance_epsilon") or module.weight.dtype != torch.float32:
        return False
    if len(signature(module.forward).parameters) != 1:  # gated ones take more
        return False
    probe = torch.linspace(-1, 2, module.weight.numel(), device=module.weight.device)
    return torch.allclose(
        module(probe), _RmsNorm.apply(probe, module.weight, module.variance_epsilon), atol=1e-5
    )


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        wide = x.float()
        squares = torch.linalg.vector_norm(wide, dim=-1, keepdim=True) ** 2
        scale = (squares / x.shape[-1] + eps).rsqrt()
        ctx.save_for_backward(x, weight_D, scale)
        return (wide * scale).mul_(weight_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """dx = s g - x s^3 mean(g x), with s the scale and g = weight dy."""
        x, weight_D, scale = ctx.saved_tensors
        dx = dweight = None
        wide = x.float()
        if ctx.needs_input_grad[0]:
            g = dy * weight_D
            share = (g * wide).sum(dim=-1, keepdim=True) * scale**3 / x.shape[-1]
            dx = g.mul_(scale).addcmul_(wide, share, value=-1).to(x.dtype)
        if ctx.needs_input_grad[1]:
            dweight = (dy * wide).mul_(scale).reshape(-1, x.shape[-1]).sum(dim=0)
        return dx, dweight, None
