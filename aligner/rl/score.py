"""From scores of whole responses to a reward on every token. Pure: tensors in, tensors out.

B = episodes, R = response positions, as in `Rollout`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aligner.recipe.ppo import MissingEosSpec
from aligner.rl.kl import k1, nats_per_response
from aligner.rl.rollout import Rollout


@dataclass(frozen=True)
class Scored:
    """A rollout with its rewards."""

    rollout: Rollout  # as it is learnt from: a response that the missing-EOS rule masks has no token in it
    rewards_BR: Tensor  # -beta log(policy / reference) on each token, plus the score on the last real one
    scores_B: Tensor  # what each response earned, missing-EOS rule applied, KL not
    kl_B: Tensor  # log(policy / reference) of each response, in nats; its mean estimates the KL


def score(
    rollout: Rollout,
    scores_B: Tensor,
    ref_logprobs_BR: Tensor,
    *,
    kl_coef: float,
    missing_eos: MissingEosSpec,
    tokens_BR: Tensor | None = None,
) -> Scored:
    """Rewards whose sum is score - kl_coef * log(policy / reference), the KL-regularised objective of RLHF.

    The KL is k1, in the reward: see `aligner.rl.kl`. `tokens_BR`, where there are any, are rewards of single tokens;
    where the missing-EOS rule replaces what a response earned, it replaces them too.
    """
    scores_B = apply_missing_eos(scores_B, rollout.finished_B, missing_eos)
    kl_BR = torch.where(rollout.mask_BR, k1(rollout.logprobs_BR, ref_logprobs_BR), 0.0)
    kl_B = nats_per_response(kl_BR, rollout.mask_BR)
    if missing_eos.mode == "mask":
        rollout = replace(rollout, mask_BR=rollout.mask_BR & rollout.finished_B[:, None])
    rewards_BR = place_at_end(scores_B, rollout.mask_BR) - kl_coef * torch.where(rollout.mask_BR, kl_BR, 0.0)
    if tokens_BR is not None:
        counts_BR = rollout.mask_BR
        if missing_eos.mode == "replace":
            counts_BR = counts_BR & rollout.finished_B[:, None]
        tokens_BR = torch.where(counts_BR, tokens_BR, 0.0)
        rewards_BR, scores_B = rewards_BR + tokens_BR, scores_B + tokens_BR.sum(dim=1)
    return Scored(rollout, rewards_BR, scores_B, kl_B)


def apply_missing_eos(scores_B: Tensor, finished_B: Tensor, rule: MissingEosSpec) -> Tensor:
    """A response that was cut at the length limit earns `value` ("replace") or its score less |value| ("subtract").

    "mask" leaves the score as it is: `score` takes the response's tokens out of the update.
    """
    if rule.mode == "mask":
        return scores_B
    unfinished = (
        torch.full_like(scores_B, rule.value) if rule.mode == "replace" else scores_B - abs(rule.value)
    )
    return torch.where(finished_B, scores_B, unfinished)


def place_at_end(scores_B: Tensor, mask_BR: Tensor) -> Tensor:
    """The score on the last real token (the end of text, when the response has one), 0 elsewhere: (B, R).

    The place comes from the mask, never from token ids. A response without tokens has no place: its row is all 0.
    """
    places_R = torch.arange(mask_BR.shape[1], device=mask_BR.device)
    last_B = torch.where(mask_BR, places_R, -1).max(dim=1).values
    return torch.where(places_R == last_B[:, None], scores_B[:, None], 0.0)
