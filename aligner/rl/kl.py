"""Estimators of KL(policy || reference) from tokens drawn by the policy, in nats (Schulman 2020, "Approximating KL").

With d = log policy - log reference at the drawn token: k1 = d and k3 = e^-d - 1 + d are unbiased, k2 = d^2 / 2 is not.
As *gradients* they differ more: only k1 inside the reward leads a sequence policy to the KL-regularised optimum
(tests/rl/test_fixed_point.py shows where the others end).
"""

from __future__ import annotations

import torch
from torch import Tensor

MOST_KL_ERROR = 0.2  # relative distance from the target that the controller sees at most


def k1(logprobs_BR: Tensor, ref_logprobs_BR: Tensor) -> Tensor:
    """d: unbiased, may be negative. Any shape."""
    return logprobs_BR - ref_logprobs_BR


def k2(logprobs_BR: Tensor, ref_logprobs_BR: Tensor) -> Tensor:
    """d^2 / 2: never negative, biased; its gradient is unbiased for a single token."""
    return (logprobs_BR - ref_logprobs_BR) ** 2 / 2


def k3(logprobs_BR: Tensor, ref_logprobs_BR: Tensor) -> Tensor:
    """e^-d - 1 + d: never negative, unbiased; its gradient is that of the *forward* KL."""
    d_BR = logprobs_BR - ref_logprobs_BR
    return torch.expm1(-d_BR) + d_BR


def adapted_coefficient(
    coefficient: float, kl_nats: float, *, target: float, horizon: int, episodes: int
) -> float:
    """The coefficient after a batch of `episodes` whose KL was `kl_nats` per response, summed over its tokens.

    Ziegler et al. 2019 (arXiv:1909.08593), 2.2, with their code's clip of the error at a fifth:
        e = clip(KL / target - 1, -.2, .2),    beta <- beta (1 + e episodes / horizon)
    By hand: twice the target, 512 episodes, horizon 10,000  ->  beta (1 + .2 * .0512) = 1.01024 beta.
    """
    error = min(max(kl_nats / target - 1, -MOST_KL_ERROR), MOST_KL_ERROR)
    return coefficient * (1 + error * episodes / horizon)


def nats_per_response(kl_BR: Tensor, mask_BR: Tensor) -> Tensor:
    """The sum over each response's real tokens: (B,). The KL of whole responses is the mean of this over episodes."""
    return torch.where(mask_BR, kl_BR, 0.0).sum(dim=1)
