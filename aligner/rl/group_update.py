"""One update of RLOO, GRPO or rejection sampling: a scored rollout in, changed weights and a few figures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aligner.errors import ModelError, Problem
from aligner.recipe.group import GroupRecipe, GroupSpec, GrpoSpec, RejectionSpec, RlooSpec
from aligner.rl.actors import LanguageActor
from aligner.rl.advantages import masked_mean
from aligner.rl.finite import check_finite, check_weights, finite
from aligner.rl.group import (
    GroupLoss,
    best_of_group,
    group_relative,
    grpo_loss,
    leave_one_out,
    rloo_loss,
    token_weights,
)
from aligner.rl.kl import k3
from aligner.rl.ranks import ALONE, Ranks
from aligner.rl.rollout import Rollout
from aligner.rl.score import Scored
from aligner.rl.steps import added, all_minibatches, check_first_ratio, set_learning_rates


class GroupStats(NamedTuple):
    """Means over the update's optimiser steps, but for the last."""

    policy_loss: float = 0.0
    clip_share: float = 0.0
    kl_old_nats: float = 0.0  # per token, of the policies of each optimiser step to the one that sampled
    entropy_nats: float = 0.0
    grad_norm: float = 0.0  # before clipping
    ratio_first_error: float = 0.0  # largest |ratio - 1| before the first optimiser step


@dataclass(frozen=True)
class GroupBatch:
    """What stays fixed through the inner epochs; also the episodes of one optimiser step, or of one pass."""

    rollout: Rollout
    old_logprobs_BR: Tensor
    ref_logprobs_BR: Tensor
    advantages_B: Tensor

    def select(self, episodes: Tensor) -> GroupBatch:
        """These episodes alone, cut to their own longest response."""
        rollout = self.rollout.select(episodes)
        width = rollout.mask_BR.shape[1]
        return GroupBatch(
            rollout,
            self.old_logprobs_BR[episodes, :width],
            self.ref_logprobs_BR[episodes, :width],
            self.advantages_B[episodes],
        )


@dataclass(frozen=True)
class GroupUpdate:
    """The policy, what of it is trained, and by which recipe.

    `policy` gives probabilities at the temperature that is learnt at: that of sampling, in rejection sampling 1.
    """

    recipe: GroupRecipe
    policy: LanguageActor
    weights: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    ranks: Ranks = ALONE

    def __call__(self, batch: GroupBatch, step: int) -> GroupStats:
        """`epochs` passes over the rollout batch, `minibatches` optimiser steps each, in an order of (seed, step)."""
        spec = self.recipe.numbers
        set_learning_rates(self.optimizer, step=step, steps=spec.steps)
        done: list[GroupStats] = []
        for episodes in all_minibatches(batch.rollout, spec, seed=self.recipe.seed, step=step):
            found = self._accumulate(batch.select(episodes))
            if not done and self.policy.same_numerics:
                check_first_ratio(found.ratio_first_error)
            self.ranks.add_gradients(self.weights.values())
            norm = nn.utils.clip_grad_norm_(list(self.weights.values()), spec.max_grad_norm)
            done.append(found._replace(grad_norm=finite(float(norm), "gradient norm", self.recipe.stage)))
            self.optimizer.step()
        check_weights(self.weights.values(), self.recipe.stage)
        means = GroupStats(*(sum(column) / len(done) for column in zip(*done, strict=True)))
        return means._replace(ratio_first_error=done[0].ratio_first_error)

    def _accumulate(self, batch: GroupBatch) -> GroupStats:
        """This rank's part of the gradients of one optimiser step, some episodes at a time, and all ranks' figures.

        Every mean is over the step's own counts.
        """
        self.optimizer.zero_grad(set_to_none=True)
        per_pass = self.recipe.numbers.rows_per_device or len(batch.rollout.prompts)
        weights_B = self._token_weights(batch.rollout.mask_BR)

        def learn() -> GroupStats:
            total = GroupStats()
            for rows, weight in self.ranks.passes(batch.rollout, per_pass):
                loss, found = self._losses(batch.select(rows), weights_B[rows], batch)
                finite(found.policy_loss, "loss", self.recipe.stage)
                torch.autograd.backward(weight * loss)
                if weight:
                    total = added(total, found)
            return total

        return reduce(added, self.ranks.together(learn))

    def _token_weights(self, mask_BR: Tensor) -> Tensor:
        spec = self.recipe.numbers
        return token_weights(
            mask_BR,
            loss=spec.loss if isinstance(spec, GrpoSpec) else "dapo",  # the others read none
            max_new_tokens=self.recipe.sampling.max_new_tokens,
        )

    def _losses(self, part: GroupBatch, weights_B: Tensor, whole: GroupBatch) -> tuple[Tensor, GroupStats]:
        """The loss to be differentiated, and what is told about it."""
        mask_BR, num_tokens = part.rollout.mask_BR, whole.rollout.num_tokens
        now = self.policy.evaluate(part.rollout.prompts, part.rollout.ids_BR, mask_BR)
        found = self._loss(now.logprobs_BR, part, weights_B, whole)
        moved_BR = k3(part.old_logprobs_BR, now.logprobs_BR.detach())
        return found.loss, GroupStats(
            policy_loss=float(found.loss.detach()),
            clip_share=float(found.clip_share),
            kl_old_nats=float(masked_mean(moved_BR, mask_BR, num_tokens=num_tokens)),
            entropy_nats=float(masked_mean(now.entropy_BR.detach(), mask_BR, num_tokens=num_tokens)),
            ratio_first_error=float(found.ratio_error),
        )

    def _loss(self, logprobs_BR: Tensor, part: GroupBatch, weights_B: Tensor, whole: GroupBatch) -> GroupLoss:
        spec = self.recipe.numbers
        if isinstance(spec, RlooSpec):
            return rloo_loss(
                logprobs_BR,
                part.old_logprobs_BR,
                part.advantages_B,
                part.rollout.mask_BR,
                clip=spec.clip,
                episodes=len(whole.rollout.prompts),
            )
        if isinstance(spec, RejectionSpec):
            mean = masked_mean(logprobs_BR, part.rollout.mask_BR, num_tokens=whole.rollout.num_tokens)
            return GroupLoss(-mean, torch.zeros(()), torch.zeros(()))
        return grpo_loss(
            logprobs_BR,
            part.old_logprobs_BR,
            part.ref_logprobs_BR,
            part.advantages_B,
            part.rollout.mask_BR,
            weights_B,
            clip=spec.clip,
            kl_coef=spec.kl_coef,
            num_tokens=whole.rollout.num_tokens,
        )


def check_scored(scored: Scored, rollout: Rollout, ref_logprobs_BR: Tensor, area: str) -> None:
    """Stopped where something that the update will be made of is no number, before it has begun."""
    check_finite(rollout.logprobs_BR, rollout.mask_BR, "log-probabilities", area)
    check_finite(ref_logprobs_BR, rollout.mask_BR, "log-probabilities of the reference", area)
    check_finite(scored.scores_B, None, "scores of responses", area)


def best_responses(batch: GroupBatch, scores_B: Tensor, spec: RejectionSpec) -> GroupBatch:
    """The best of each group; one that the missing-EOS rule masks is the last to be taken."""
    has_tokens_B = batch.rollout.mask_BR.any(dim=1)
    ranked_B = torch.where(has_tokens_B, scores_B, -torch.inf)
    return batch.select(best_of_group(ranked_B, spec.samples_per_prompt, spec.keep))


def advantages(scored: Scored, spec: GrpoSpec | RlooSpec | RejectionSpec) -> Tensor:
    """What each response is worth beside the others to its prompt: (B,). RLOO's rewards lose the KL, GRPO's do not."""
    group = spec.samples_per_prompt
    if isinstance(spec, RlooSpec):
        return leave_one_out(scored.scores_B - spec.kl_coef * scored.kl_B, group, whiten=spec.whiten)
    if isinstance(spec, RejectionSpec):
        return torch.ones_like(scored.scores_B)  # what is kept is learnt like any answer
    return group_relative(scored.scores_B, group, scale=spec.scale)


def policy_weights(policy: LanguageActor) -> dict[str, nn.Parameter]:
    """What is trained of the policy, by name; its critic is not."""
    return {name: w for name, w in policy.named_parameters().items() if name.startswith("policy.")}


def policy_optimizer(weights: Mapping[str, nn.Parameter], spec: GroupSpec, area: str) -> torch.optim.Adam:
    """Adam as PPO's, with a rate of its own for vectors; ModelError when that is set and no vector is trained."""
    gains = [weight for weight in weights.values() if weight.ndim <= 1]
    matrices = [weight for weight in weights.values() if weight.ndim > 1]
    if spec.gain_learning_rate and not gains:
        remedy = "name a norm in model.lora.modules_to_save, or leave it out"
        raise ModelError(Problem(f"{area}.gain_learning_rate", "no vector is trained", remedy))
    groups = [
        {"params": matrices, "lr": spec.learning_rate},
        {"params": gains, "lr": spec.gain_learning_rate or spec.learning_rate},
    ]
    return torch.optim.Adam([group for group in groups if group["params"]], eps=1e-5)
