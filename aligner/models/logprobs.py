"""Log-probabilities of given tokens and entropies, from logits, a few rows at a time.

A vocabulary-wide row is written twice, as logits and as their gradient; what comes between (log-probabilities,
probabilities) exists for a few rows only, which fit the processor's cache. N = tokens, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from aligner.models.wrapped import device_of, output_head, text_config

CHUNK = {"cpu": 1 << 17, "cuda": 1 << 27}  # numbers at a time: 512 KiB in float32 stay in a core's cache
MOST_LOGITS = 1 << 28  # kept at once, a GiB in float32: 1,766 tokens' with a vocabulary of 152,000


def token_logprobs(logits_NV: Tensor, ids_N: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """log p of each token and the entropy of the distribution it is from: (N,) each, float32, nats, differentiable.

    p = softmax(logits / temperature). By hand: logits log [.5, .25, .25], token 0 -> log .5 and 1.5 log 2.
    """
    logprobs_N, entropy_N = _TokenLogprobs.apply(logits_NV, ids_N, temperature)
    return logprobs_N, entropy_N


def read_logprobs(
    model: nn.Module,
    inputs: dict[str, Any],
    row_N: Tensor,
    column_N: Tensor,
    ids_N: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of `ids_N`, entropies (N,) and what the head saw (N, D), at (row, column).

    The head is called by the model, on these hidden states alone: the pass goes through every wrapper (PEFT, data
    parallel) and keeps what an architecture does to its logits after the head (soft caps, scales). Where there are too
    many for one call, and the architecture does nothing more, the others follow part by part.
    """
    head, most, seen = output_head(model), _rows_of_logits(text_config(model).vocab_size), []

    def pick(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        seen.append(given[0][row_N, column_N])
        return (seen[0][None, :most] if plain else seen[0][None],)

    plain = len(row_N) > most and _is_bare(model)
    handle = head.register_forward_pre_hook(pick)
    try:
        logits_NV = model(**inputs).logits.squeeze(0)  # a view: the gradient of [0] would be a copy of it all
    finally:
        handle.remove()
    count, hidden_ND = len(logits_NV), seen[0]
    found = token_logprobs(logits_NV, ids_N[:count], temperature=temperature)
    if count < len(ids_N):
        rest = _head_logprobs(head, hidden_ND[count:], ids_N[count:], temperature=temperature, rows=most)
        found = (torch.cat([found[0], rest[0]]), torch.cat([found[1], rest[1]]))
    return (*found, hidden_ND)


@torch.no_grad()
def _is_bare(model: nn.Module) -> bool:
    """Whether the model's logits are what its head gives, and nothing is done to them afterwards: asked of itself."""
    given: list[Tensor] = []
    handle = output_head(model).register_forward_hook(lambda _module, _args, logits: given.append(logits))
    try:
        logits = model(input_ids=torch.tensor([[0, 1]], device=device_of(model)), use_cache=False).logits
    finally:
        handle.remove()
    return torch.equal(given[0], logits)


def _rows_of_logits(vocab_size: int) -> int:
    """How many vocabulary-wide rows may be there at once."""
    return max(1, MOST_LOGITS // vocab_size)


def _head_logprobs(
    head: nn.Module, hidden_ND: Tensor, ids_N: Tensor, *, temperature: float, rows: int
) -> tuple[Tensor, Tensor]:
    """`token_logprobs` of head(hidden), so many rows at a time; their logits are computed again for the gradient."""

    def part(hidden_CD: Tensor, ids_C: Tensor) -> tuple[Tensor, Tensor]:
        return token_logprobs(head(hidden_CD), ids_C, temperature=temperature)

    parts = [
        checkpoint(part, hidden_CD, ids_C, use_reentrant=False)
        for hidden_CD, ids_C in zip(hidden_ND.split(rows), ids_N.split(rows), strict=True)
    ]
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


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
