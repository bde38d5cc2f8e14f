"""Linear layers that cost fewer and faster matrix products than nn.Linear and PEFT's, with the same result.

A LoRA layer computes x (W + s B A)^T by one product with the sum of its weights, where PEFT makes three and two passes
over the output. Gradients reach A and B through products of rank r alone: W's gradient is never formed. Results are
those of the plain layers up to rounding.

N = tokens, I = inputs, O = outputs, K = rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


@contextmanager
def held_weights(model: nn.Module) -> Iterator[None]:
    """Within, no weight changes and no gradient is asked for: each layer adds up and rounds its weights once."""
    layers: list[FastLinear | FastLora] = []
    inside: set[nn.Module] = set()  # what a LoRA layer has added up is not held once more
    for layer in model.modules():
        if isinstance(layer, FastLinear | FastLora) and layer not in inside:
            layer.held = layer.whole_weight()
            layers.append(layer)
            if layer.held is not None:
                inside.update(layer.modules())
    try:
        yield
    finally:
        for layer in layers:
            layer.held = None


class FastLinear(nn.Linear):
    """nn.Linear; `held` is its weight as `held_weights` keeps it."""

    held: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        if self.held is not None and not torch.is_grad_enabled():
            return product(x.to(self.held.dtype), self.held, self.bias)
        if not _prefers_onednn(x, self.weight):
            return super().forward(x)
        return _with_bias(_Linear.apply(x, self.weight), self.bias)

    @torch.no_grad()
    def whole_weight(self) -> Tensor | None:
        """The weight in the numbers that are computed with; None where it is not in float32."""
        return None if self.weight.dtype != torch.float32 else _rounded(self.weight).detach()


class FastLora(LoraLinear):
    """PEFT's LoRA layer over a plain nn.Linear, by one product with the summed weight."""

    held: Tensor | None = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., I) -> (..., O)."""
        if self.held is not None and not torch.is_grad_enabled():
            return product(x.to(self.held.dtype), self.held, self.base_layer.bias)
        name = None if args or kwargs else self._only_adapter()
        if name is None:
            return super().forward(x, *args, **kwargs)
        down, up, scale = self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]
        return _with_bias(_Lora.apply(x, self.base_layer.weight, down, up, scale), self.base_layer.bias)

    @torch.no_grad()
    def whole_weight(self) -> Tensor | None:
        """W + s B A in the numbers that are computed with; None where more than the one adapter has a say."""
        name = self._only_adapter()
        if name is None:
            return None
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        return _rounded(_summed(self.base_layer.weight, down, up, self.scaling[name]))

    def _only_adapter(self) -> str | None:
        """The one adapter that is on, where it is a plain one in float32 and nothing is dropped out."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(names) != 1 or self.fan_in_fan_out:
            return None
        name = names[0]
        drops = self.training and not isinstance(self.lora_dropout[name], nn.Identity)
        weights = (self.base_layer.weight, self.lora_A[name].weight, self.lora_B[name].weight)
        odd = name in self.lora_variant or self.lora_bias[name] or drops
        return None if odd or any(weight.dtype != torch.float32 for weight in weights) else name


def product(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: (..., I) -> (..., O).

    In float32 on an AMD CPU by oneDNN, which is 1.3 to 2.5 times as fast there as MKL, by shape (4096 x 128 x 344, one
    thread: 205 and 86 GFLOP/s); torch itself would take MKL.
    """
    if _prefers_onednn(x, weight_OI):
        return torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", [], "")
    return F.linear(x, weight_OI, None if bias_O is None else bias_O.to(x.dtype))


_ONEDNN = "AMD" in str(torch.cpu.get_capabilities().get("cpu_name")) and torch.backends.mkldnn.is_available()


def _prefers_onednn(x: Tensor, weight_OI: Tensor) -> bool:
    plain = x.dtype == weight_OI.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
    return _ONEDNN and plain and not torch.is_autocast_enabled("cpu")


def _summed(weight_OI: Tensor, down_KI: Tensor, up_OK: Tensor, scale: float) -> Tensor:
    with torch.autocast(weight_OI.device.type, enabled=False):
        return torch.addmm(weight_OI, up_OK, down_KI, alpha=scale)


def _rounded(weight: Tensor) -> Tensor:
    """In the numbers of autocast, where it is on."""
    device = weight.device.type
    return weight.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else weight


def _with_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias.to(y.dtype)


class _Linear(torch.autograd.Function):
    """x @ weight.T, every product of it by `product`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight_OI)
        return product(x, weight_OI)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight_OI = ctx.saved_tensors
        dx = product(dy, weight_OI.T) if ctx.needs_input_grad[0] else None
        dweight = product(_rows(dy).T, _rows(x).T) if ctx.needs_input_grad[1] else None
        return dx, dweight


class _Lora(torch.autograd.Function):
    """x @ (W + s B A)^T; W is frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_OI: Tensor, down_KI: Tensor, up_OK: Tensor, scale: float
    ) -> Tensor:
        summed_OI = _rounded(_summed(weight_OI, down_KI, up_OK, scale))
        x = x.to(summed_OI.dtype)
        ctx.save_for_backward(x, weight_OI, down_KI, up_OK)
        ctx.scale = scale
        return product(x, summed_OI)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_OI, down_KI, up_OK = ctx.saved_tensors
        dx = ddown = dup = None
        with torch.autocast(x.device.type, enabled=False):
            if ctx.needs_input_grad[0]:  # summed anew: as cheap as keeping it is dear
                dx = product(dy, _summed(weight_OI, down_KI, up_OK, ctx.scale).to(dy.dtype).T)
            x_NI, dy_NO, down, up = _rows(x), _rows(dy), down_KI.to(dy.dtype), up_OK.to(dy.dtype)
            if ctx.needs_input_grad[2]:
                ddown = ctx.scale * product(product(dy_NO, up.T).T, x_NI.T).to(down_KI.dtype)
            if ctx.needs_input_grad[3]:
                dup = ctx.scale * product(dy_NO.T, product(x_NI, down).T).to(up_OK.dtype)
        return dx, None, ddown, dup, None


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])
