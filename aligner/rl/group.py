"""Advantages over the other responses to the same prompt, and the losses of RLOO and GRPO. Pure: tensors in, out.

B = episodes, R = response positions; the responses to one prompt lie side by side, G of them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from aligner.rl.kl import k3

EPS = 1e-4  # of TRL's, beside the deviation: equal rewards give no advantage instead of nan


class GroupLoss(NamedTuple):
    """`loss` and `clip_share` are this part's share of the step's mean; `ratio_error` is the part's largest."""

    loss: Tensor
    clip_share: Tensor  # of the responses (RLOO) or tokens (GRPO), those whose ratio was cut
    ratio_error: Tensor  # largest |new / old - 1| of a token


def leave_one_out(rewards_B: Tensor, group: int, *, whiten: bool = False) -> Tensor:
    """Each response's reward less the mean of the others to its prompt: (B,).

    By hand: [1, 2, 6] -> [1 - 4, 2 - 3.5, 6 - 1.5].
    """
    rewards_PG = rewards_B.view(-1, group)
    others_PG = (rewards_PG.sum(dim=1, keepdim=True) - rewards_PG) / (group - 1)
    advantages_B = (rewards_PG - others_PG).flatten()
    if not whiten:
        return advantages_B
    return (advantages_B - advantages_B.mean()) / (advantages_B.std() + EPS)


def group_relative(rewards_B: Tensor, group: int, *, scale: Literal["group", "batch", "none"]) -> Tensor:
    """Each response's reward less its group's mean, over the deviation of its group, of the batch, or of nothing: (B,).

    By hand: [1, 3] -> [-1, 1] / (sqrt 2 + 1e-4) by group, [-1, 1] by none.
    """
    rewards_PG = rewards_B.view(-1, group)
    leads_PG = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    if scale == "group":
        leads_PG = leads_PG / (rewards_PG.std(dim=1, keepdim=True) + EPS)
    elif scale == "batch":
        leads_PG = leads_PG / (rewards_B.std() + EPS)
    return leads_PG.flatten()


def best_of_group(scores_B: Tensor, group: int, keep: int) -> Tensor:
    """Numbers of the `keep` best responses to each prompt, in order; of equals the first: (P x keep,).

    By hand: groups [1, 3, 3] and [5, 4, 6], keep 1 -> 1, 5.
    """
    best_PG = scores_B.view(-1, group).argsort(dim=1, descending=True, stable=True)
    firsts_P1 = torch.arange(0, len(scores_B), group, device=scores_B.device)[:, None]
    return (best_PG[:, :keep] + firsts_P1).flatten().sort().values


def rloo_loss(
    logprobs_BR: Tensor,
    old_logprobs_BR: Tensor,
    advantages_B: Tensor,
    mask_BR: Tensor,
    *,
    clip: float,
    episodes: int,
) -> GroupLoss:
    """Mean over the step's `episodes` of max(-A r, -A clip(r)), r = p / p_old of the response: it is one action.

    By hand: A = 1, two tokens of ratio 1.1 and 1.2, clip .2 -> r = 1.32, loss -1.2, cut.
    """
    change_BR = torch.where(mask_BR, logprobs_BR - old_logprobs_BR, 0.0)
    free_B, cut_B = _surrogates(change_BR.sum(dim=1).exp(), advantages_B, clip)
    return GroupLoss(
        loss=torch.maximum(free_B, cut_B).sum() / episodes,
        clip_share=(cut_B > free_B).sum() / episodes,
        ratio_error=change_BR.detach().expm1().abs().max(),
    )


def grpo_loss(
    logprobs_BR: Tensor,
    old_logprobs_BR: Tensor,
    ref_logprobs_BR: Tensor,
    advantages_B: Tensor,
    mask_BR: Tensor,
    weights_B: Tensor,
    *,
    clip: float,
    kl_coef: float,
    num_tokens: int,
) -> GroupLoss:
    """Weighted sum over tokens of max(-A r, -A clip(r)) + kl_coef x r x k3, r = p(token) / p_old(token).

    r before k3 makes its gradient that of the tokens' reverse KL (DeepSeek-V3.2, arXiv:2512.02556; TRL's default too).

    `weights_B` (see `token_weights`): what a token of each response counts. By hand: A = 1, r = 1.5, clip .2, weight 1,
    no KL -> -1.2, cut.
    """
    change_BR = torch.where(mask_BR, logprobs_BR - old_logprobs_BR, 0.0)
    ratio_BR = change_BR.exp()
    free_BR, cut_BR = _surrogates(ratio_BR, advantages_B[:, None], clip)
    kl_BR = ratio_BR * k3(torch.where(mask_BR, logprobs_BR, 0.0), torch.where(mask_BR, ref_logprobs_BR, 0.0))
    each_BR = torch.maximum(free_BR, cut_BR) + kl_coef * kl_BR
    return GroupLoss(
        loss=(torch.where(mask_BR, each_BR, 0.0).sum(dim=1) * weights_B).sum(),
        clip_share=((cut_BR > free_BR) & mask_BR).sum() / num_tokens,
        ratio_error=change_BR.detach().expm1().abs().max(),
    )


def token_weights(
    mask_BR: Tensor, *, loss: Literal["dapo", "grpo", "dr_grpo"], max_new_tokens: int
) -> Tensor:
    """What a token of each response of an optimiser step counts, (B,): its loss is the sum of what tokens lose by it.

    dapo: 1 / tokens of the step. grpo: 1 / (its response's tokens x responses). dr_grpo: 1 / (longest allowed x
    responses), so that long wrong answers gain nothing by their length.
    """
    lengths_B = mask_BR.sum(dim=1).clamp(min=1)
    if loss == "dapo":
        return torch.ones_like(lengths_B, dtype=torch.float32) / mask_BR.sum().clamp(min=1)
    if loss == "grpo":
        return 1 / (lengths_B * len(lengths_B))
    return torch.full_like(lengths_B, 1 / (max_new_tokens * len(lengths_B)), dtype=torch.float32)


def _surrogates(ratio: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """-A r and -A clip(r, 1 - clip, 1 + clip)."""
    return -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
