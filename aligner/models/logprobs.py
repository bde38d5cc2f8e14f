"""Log-probabilities of given tokens and entropies, from logits, a few rows at a time.

A vocabulary-wide row is written twice, as logits and as their gradient; what comes between (log-probabilities,
probabilities) exists for a few rows only, which fit the processor's cache. N = tokens, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = {"cpu": 1 << 17, "cuda": 1 << 27}  # numbers at a time: 512 KiB in float32 stay in a core's cache


def token_logprobs(logits_NV: Tensor, ids_N: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """log p of each token and the entropy of the distribution it is from: (N,) each, float32, nats, differentiable.

    p = softmax(logits / temperature). By hand: logits log [.5, .25, .25], token 0 -> log .5 and 1.5 log 2.
    """
    logprobs_N, entropy_N = _TokenLogprobs.apply(logits_NV, ids_N, temperature)
    return logprobs_N, entropy_N


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, ids_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        logprobs_N = torch.zeros(len(ids_N), device=logits_NV.device)
        entropy_N = torch.zeros_like(logprobs_N)
        for rows, all_CV in _chunks(logits_NV, temperature):
            logprobs_N[rows] = all_CV.gather(1, ids_N[rows][:, None]).squeeze(1)
            entropy_N[rows] = _entropy(all_CV)
        ctx.save_for_backward(logits_NV, ids_N, entropy_N)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return logprobs_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dlogprobs_N: Tensor | None, dentropy_N: Tensor | None
    ) -> tuple[Tensor | None, None, None]:
        """d log p_i / d z_j = [i = j] - p_j, d H / d z_j = -p_j (log p_j + H), with z = logits / temperature."""
        logits_NV, ids_N, entropy_N = ctx.saved_tensors
        if dlogprobs_N is None and dentropy_N is None:
            return None, None, None
        dlogits_NV = torch.empty_like(logits_NV)
        for rows, all_CV in _chunks(logits_NV, ctx.temperature):
            p_CV, grad_CV = all_CV.exp(), torch.zeros_like(all_CV)
            if dentropy_N is not None:
                finite_CV = all_CV.clamp_min(torch.finfo(all_CV.dtype).min)  # 0 x -inf is 0 here
                grad_CV -= p_CV * (finite_CV + entropy_N[rows][:, None]) * dentropy_N[rows][:, None]
            if dlogprobs_N is not None:
                grad_CV -= p_CV * dlogprobs_N[rows][:, None]
                grad_CV.scatter_add_(1, ids_N[rows][:, None], dlogprobs_N[rows][:, None])
            dlogits_NV[rows] = grad_CV.div_(ctx.temperature).to(dlogits_NV.dtype)
        return dlogits_NV, None, None


def _chunks(logits_NV: Tensor, temperature: float) -> Iterator[tuple[slice, Tensor]]:
    """Rows, and all their log-probabilities in float32."""
    size = max(1, CHUNK.get(logits_NV.device.type, 1 << 24) // logits_NV.shape[1])
    for start in range(0, len(logits_NV), size):
        rows = slice(start, start + size)
        yield rows, (logits_NV[rows].float() / temperature).log_softmax(dim=-1)


def _entropy(all_CV: Tensor) -> Tensor:
    """-sum p log p, a token that cannot come counting 0."""
    return -(all_CV.exp() * all_CV.clamp_min(torch.finfo(all_CV.dtype).min)).sum(dim=-1)
