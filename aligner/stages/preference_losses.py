"""Losses of DPO and KTO over log(policy / reference) of whole answers: sums over what counts, divided by nothing yet.

B = answers, the chosen (desirable) half first.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from aligner.stages.losses import bradley_terry_nats


def preference_loss(
    ratios_B: Tensor,
    tokens_B: Tensor,
    *,
    loss: Literal["sigmoid", "hinge", "ipo"],
    beta: float,
    margin_B: Tensor | None = None,
    weight_B: Tensor | None = None,
) -> Tensor:
    """Sum over pairs of the loss on log(policy / reference) of their answers, chosen ones first: a scalar.

    sigmoid: Bradley-Terry on beta x the log-ratios (DPO, arXiv:2305.18290, eq. 7); hinge: how much their gap lacks of 1
    (SLiC, arXiv:2305.10425); ipo: (gap per token - 1 / 2 beta)^2 (arXiv:2310.12036, eq. 17, `tokens_B` as its authors
    do). `margin_B` is taken off the gap of the first two. By hand: equal ratios -> log 2, 1, 1 / 4 beta^2.
    """
    if loss == "ipo":
        chosen_B, rejected_B = (ratios_B / tokens_B).chunk(2)
        each_B = (chosen_B - rejected_B - 1 / (2 * beta)) ** 2
    else:
        chosen_B, rejected_B = (beta * ratios_B).chunk(2)
        if loss == "sigmoid":
            return bradley_terry_nats(chosen_B, rejected_B, margin_B, weight_B)
        gap_B = chosen_B - rejected_B
        each_B = F.relu(1 - (gap_B if margin_B is None else gap_B - margin_B))
    return (each_B if weight_B is None else weight_B * each_B).sum()


def kto_loss(
    ratios_B: Tensor,
    kl: Tensor | float,
    *,
    loss: Literal["kto", "apo_zero"],
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    weight_B: Tensor | None = None,
) -> Tensor:
    """Sum over answers of the loss on their log(policy / reference), the desirable half first: a scalar.

    kto: 1 - sigmoid(+-beta x (ratio - kl)), + for desirable answers (arXiv:2402.01306, eq. 7); `kl`: the mean log-ratio
    of answers to other prompts, at least 0. apo_zero: the same against 0 (arXiv:2408.06266, eq. 7). `weight_B`: of each
    pair. By hand: ratios equal to kl -> 1/2 each.
    """
    gains_B = beta * (ratios_B - (kl if loss == "kto" else 0.0))
    desirable_B, undesirable_B = gains_B.chunk(2)
    lost_B = desirable_weight * torch.sigmoid(-desirable_B) + undesirable_weight * torch.sigmoid(
        undesirable_B
    )
    return (lost_B if weight_B is None else weight_B * lost_B).sum()
