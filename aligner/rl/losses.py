"""PPO's two clipped losses (Schulman et al. 2017, arXiv:1707.06347). Pure: tensors in, tensors out.

B = episodes, R = response positions. `num_tokens` is the count of real response tokens of the whole optimiser step, so
the losses and shares of its micro-batches add up to those of the step.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aligner.rl.advantages import masked_mean
from aligner.rl.kl import k3


class PolicyLoss(NamedTuple):
    """`loss`, `clip_share`, `kl_old_nats` are sums over these tokens / num_tokens; `ratio_error` is their largest."""

    loss: Tensor
    clip_share: Tensor  # of the tokens, those whose ratio was cut and that give no gradient
    kl_old_nats: Tensor  # k3 estimate of KL(old || new) per token
    ratio_error: Tensor  # largest |new / old - 1|


class ValueLoss(NamedTuple):
    """Both are sums over these tokens / num_tokens."""

    loss: Tensor
    clip_share: Tensor  # of the tokens, those whose clipped error is the larger one


def policy_loss(
    logprobs_BR: Tensor,
    old_logprobs_BR: Tensor,
    advantages_BR: Tensor,
    mask_BR: Tensor,
    *,
    clip: float,
    num_tokens: Tensor | float,
    clip_high: float | None = None,
    dual_clip: float | None = None,
) -> PolicyLoss:
    """Clipped surrogate, eq. 7, negated: mean of max(-A r, -A clip(r, 1 - clip, 1 + clip_high)), r = new / old.

    `clip_high` is `clip` when left out.

    By hand: A = 1, r = 1.5, clip .2  ->  loss -1.2, cut; A = -1, r = 1.5  ->  loss 1.5, not cut.
    With `dual_clip` c, the loss of a token with A < 0 is at most -A c (Ye et al. 2020, arXiv:1912.09729, eq. 5): A = -1
    and r = 9, c = 3  ->  loss 3, cut.
    """
    new_BR = torch.where(mask_BR, logprobs_BR, 0.0)
    old_BR = torch.where(mask_BR, old_logprobs_BR, 0.0)
    ratio_BR = torch.exp(new_BR - old_BR)
    free_BR = -advantages_BR * ratio_BR
    cut_BR = -advantages_BR * ratio_BR.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    loss_BR, was_cut_BR = torch.maximum(free_BR, cut_BR), cut_BR > free_BR
    if dual_clip is not None:
        most_BR = torch.where(advantages_BR < 0, -advantages_BR * dual_clip, torch.inf)
        loss_BR, was_cut_BR = torch.minimum(loss_BR, most_BR), was_cut_BR | (loss_BR > most_BR)
    return PolicyLoss(
        loss=masked_mean(loss_BR, mask_BR, num_tokens=num_tokens),
        clip_share=masked_mean(was_cut_BR.float(), mask_BR, num_tokens=num_tokens),
        kl_old_nats=masked_mean(k3(old_BR, new_BR).detach(), mask_BR, num_tokens=num_tokens),
        ratio_error=(ratio_BR.detach() - 1).abs().max(),
    )


def value_loss(
    values_BR: Tensor,
    old_values_BR: Tensor,
    returns_BR: Tensor,
    mask_BR: Tensor,
    *,
    clip: float,
    num_tokens: Tensor | float,
) -> ValueLoss:
    """Half the mean of the larger of (V - G)^2 and (clip(V, old - clip, old + clip) - G)^2.

    By hand: V = 1, old = 0, G = 1, clip .2  ->  the clipped value .2 is the worse one: .5 * .64 = .32.
    """
    near_BR = torch.clamp(values_BR, old_values_BR - clip, old_values_BR + clip)
    free_BR = (values_BR - returns_BR) ** 2
    cut_BR = (near_BR - returns_BR) ** 2
    return ValueLoss(
        loss=0.5 * masked_mean(torch.maximum(free_BR, cut_BR), mask_BR, num_tokens=num_tokens),
        clip_share=masked_mean((cut_BR > free_BR).float(), mask_BR, num_tokens=num_tokens),
    )


def explained_variance(values_BR: Tensor, returns_BR: Tensor, mask_BR: Tensor) -> Tensor:
    """1 - Var(G - V) / Var(G) over the real tokens: 1 a perfect critic, 0 as good as a constant, below 0 worse.

    0 when the returns do not vary, or there are none: there is nothing to explain.
    """
    returns, errors = returns_BR[mask_BR], (returns_BR - values_BR)[mask_BR]
    if len(returns) == 0:
        return returns_BR.new_zeros(())
    spread = returns.var(correction=0)
    return torch.where(spread > 0, 1 - errors.var(correction=0) / spread.clamp_min(1e-12), 0.0)
