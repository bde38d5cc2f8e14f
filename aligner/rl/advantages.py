"""Generalised advantages and their whitening. Pure: tensors in, tensors out.

B = episodes, R = response positions. `mask_BR` is True where the token is a real response token, end of text included.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(rewards_BR: Tensor, values_BR: Tensor, mask_BR: Tensor, *, gamma: float, lam: float) -> Tensor:
    """One advantage per response token, (B, R); 0 where the mask is False.

    Schulman et al. 2016 (arXiv:1506.02438), eq. 16:
        A_t = d_t + gamma * lam * A_{t+1},    d_t = r_t + gamma * V_{t+1} - V_t
    t+1 is the next *real* token: a gap in the mask (a tool's output, say) is stepped over, and after the last real
    token value and advantage are 0, so whatever stands in the padding has no say.

    By hand: rewards [0, 1], values [.5, .5], gamma = lam = 1  ->  [.5, .5].
    """
    advantages_BR = torch.zeros_like(rewards_BR)
    next_value_B = torch.zeros_like(rewards_BR[:, 0])
    next_advantage_B = torch.zeros_like(next_value_B)
    for t in reversed(range(rewards_BR.shape[1])):
        real_B = mask_BR[:, t]
        delta_B = rewards_BR[:, t] + gamma * next_value_B - values_BR[:, t]
        advantage_B = delta_B + gamma * lam * next_advantage_B
        advantages_BR[:, t] = torch.where(real_B, advantage_B, 0.0)
        next_advantage_B = torch.where(real_B, advantage_B, next_advantage_B)
        next_value_B = torch.where(real_B, values_BR[:, t], next_value_B)
    return advantages_BR


def masked_mean(x_BR: Tensor, mask_BR: Tensor, *, num_tokens: Tensor | float) -> Tensor:
    """Sum over the real tokens here, over `num_tokens`: the real tokens of the whole optimiser step.

    The denominator is an argument because a mean of the parts' own means weighs a short part's tokens more; with the
    step's count, the losses of any split into parts add up to the loss of the whole.
    """
    return torch.where(mask_BR, x_BR, 0.0).sum() / num_tokens


def masked_whiten(x_BR: Tensor, mask_BR: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Mean 0 and variance 1 over all real tokens of the batch; 0 where the mask is False.

    The batch is to be the whole rollout batch: whitened by parts, an episode's advantage would hang on its neighbours.
    By hand: [1, 3 | padding]  ->  [-1, 1 | 0].
    """
    num_tokens = mask_BR.sum()
    centred_BR = torch.where(mask_BR, x_BR - masked_mean(x_BR, mask_BR, num_tokens=num_tokens), 0.0)
    variance = masked_mean(centred_BR**2, mask_BR, num_tokens=num_tokens)
    return centred_BR / (variance + eps).sqrt()
