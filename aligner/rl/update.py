"""One PPO update: a scored rollout in, changed weights and a few figures out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from aligner.errors import TrainingError
from aligner.recipe.ppo import PpoSpec
from aligner.rl.advantages import gae, masked_mean, masked_whiten
from aligner.rl.finite import Stopped, check_finite, check_weights, finite
from aligner.rl.losses import explained_variance, policy_loss, value_loss
from aligner.rl.ranks import ALONE, Ranks
from aligner.rl.rollout import Rollout
from aligner.rl.score import Scored
from aligner.rl.steps import added, all_minibatches, check_first_ratio, set_learning_rates


class Evaluation(NamedTuple):
    """What the actor thinks of given responses now; (B, R) each, with gradient."""

    logprobs_BR: Tensor  # nats, at the sampling temperature
    entropy_BR: Tensor  # nats, of the next-token distribution; with gradient where the actor is asked for one
    values_BR: Tensor  # reward still to come


class Actor(Protocol):
    """A policy and its critic, as far as the update needs to know them. No dropout anywhere in it."""

    def evaluate(self, prompts: list[list[int]], ids_BR: Tensor, mask_BR: Tensor) -> Evaluation: ...

    def parameters(self) -> Iterable[nn.Parameter]:
        """The ones that are trained."""
        ...

    def value_parameters(self) -> Sequence[nn.Parameter]:
        """Those of them that the critic has for itself; the policy does not change with them."""
        ...


class Mix(Protocol):
    """What else is learnt in each optimiser step."""

    def add_gradient(self) -> float:
        """Add its gradient to what is there; returns its loss, in nats per token."""
        ...


class UpdateStats(NamedTuple):
    """Means over the update's optimiser steps, but for the last three."""

    policy_loss: float = 0.0
    value_loss: float = 0.0
    clip_share: float = 0.0
    value_clip_share: float = 0.0
    kl_old_nats: float = 0.0  # per token, of the policies of each optimiser step to the one that sampled
    entropy_nats: float = 0.0
    ptx_nats: float = 0.0  # per token of the text that is mixed in
    grad_norm: float = 0.0  # before clipping
    ratio_first_error: float = 0.0  # largest |ratio - 1| before the first optimiser step
    explained_variance: float = 0.0  # of the critic, before the update
    optimiser_steps: float = 0.0  # fewer than epochs x minibatches where target_kl ended the update


@dataclass(frozen=True)
class Experience:
    """What stays fixed through the inner epochs."""

    rollout: Rollout
    old_logprobs_BR: Tensor
    old_values_BR: Tensor
    advantages_BR: Tensor  # whitened over the whole rollout batch
    returns_BR: Tensor

    def select(self, episodes: Tensor) -> Experience:
        """These episodes alone, cut to their own longest response."""
        rollout = self.rollout.select(episodes)
        fixed = (self.old_logprobs_BR, self.old_values_BR, self.advantages_BR, self.returns_BR)
        return Experience(rollout, *(x_BR[episodes, : rollout.mask_BR.shape[1]] for x_BR in fixed))

    def parts(self, size: int | None, ranks: Ranks) -> Iterator[tuple[Experience, float]]:
        """What this rank reads, at what weight: at most `size` episodes at a time, else what a forward pass takes."""
        for episodes, weight in ranks.passes(self.rollout, size):
            is_whole = len(episodes) == len(self.rollout.prompts)
            yield self if is_whole else self.select(episodes), weight


def update(
    actor: Actor,
    optimizer: torch.optim.Optimizer,
    scored: Scored,
    spec: PpoSpec,
    *,
    seed: int,
    step: int,
    same_numerics: bool = True,
    mix: Mix | None = None,
    check: Callable[[Experience], None] | None = None,
    ranks: Ranks = ALONE,
) -> UpdateStats:
    """`spec.epochs` passes over the rollout batch, `spec.minibatches` optimiser steps each.

    `spec.target_kl` ends it early: before an optimiser step, where the policy is further than that from the one that
    sampled, in nats per token (k3) over the step's own minibatch. The first step is always taken.

    The first `spec.value_warmup_steps` steps train what the critic has for itself, and the policy stays as it is. In
    the others `mix`, where there is one, adds its gradient to every optimiser step, before clipping.

    The order of episodes is a function of (seed, step, epoch). With `same_numerics` (sampler and actor both compute in
    float32) the ratio must be 1 before the first optimiser step; without it, the actor's own log-probabilities stand
    for the sampler's. `check` sees what will be learnt from, and may refuse it.

    Of several `ranks`, each with the same `scored`, every one reads a share; gradients and figures are summed before
    anything is decided by them, so all take the step that one alone would.

    Stopped where something is wrong before the first optimiser step; TrainingError where it is later.
    """
    batch = prepare(actor, scored, spec, same_numerics=same_numerics, ranks=ranks)
    if check is not None:
        check(batch)
    set_learning_rates(optimizer, step=step, steps=spec.steps)
    trained = actor.value_parameters() if step < spec.value_warmup_steps else None
    done: list[UpdateStats] = []
    with _stopped_before_the_first(done):
        for episodes in all_minibatches(scored.rollout, spec, seed=seed, step=step):
            optimizer.zero_grad(set_to_none=True)
            part = _accumulate(actor, batch.select(episodes), spec, trained, ranks)
            if same_numerics and not done:
                check_first_ratio(part.ratio_first_error)
            if done and spec.target_kl is not None and part.kl_old_nats > spec.target_kl:
                break
            if mix is not None and trained is None:
                part = part._replace(ptx_nats=finite(mix.add_gradient(), "loss of ptx"))
            done.append(part._replace(grad_norm=clipped(actor, spec.max_grad_norm, ranks)))
            optimizer.step()
    check_weights(actor.parameters())
    return _summary(done, explained_variance(batch.old_values_BR, batch.returns_BR, scored.rollout.mask_BR))


@contextmanager
def _stopped_before_the_first(done: Sequence[UpdateStats]) -> Iterator[None]:
    """What goes wrong before an optimiser step is done is Stopped: no weight has changed."""
    try:
        yield
    except TrainingError as error:
        if done:
            raise
        raise Stopped(error.problems) from error


def clipped(actor: Actor, max_norm: float, ranks: Ranks) -> float:
    """The norm of all ranks' gradient, which is what the weights have afterwards, cut at `max_norm`."""
    ranks.add_gradients(actor.parameters())
    return finite(float(nn.utils.clip_grad_norm_(list(actor.parameters()), max_norm)), "gradient norm")


def prepare(
    actor: Actor, scored: Scored, spec: PpoSpec, *, same_numerics: bool = True, ranks: Ranks = ALONE
) -> Experience:
    """Old values, advantages and returns of a rollout batch. Stopped where a number of it is none."""
    rollout = scored.rollout
    check_finite(rollout.logprobs_BR, rollout.mask_BR, "log-probabilities")
    check_finite(scored.rewards_BR, rollout.mask_BR, "rewards of tokens (scores and KL)")
    check_finite(
        scored.scores_B + scored.kl_B, None, "scores and KLs of responses"
    )  # also of those masked out
    logprobs_BR, values_BR = _as_sampled(actor, rollout, spec, ranks, same_numerics=same_numerics)
    check_finite(values_BR, rollout.mask_BR, "values")
    advantages_BR = gae(scored.rewards_BR, values_BR, rollout.mask_BR, gamma=spec.gamma, lam=spec.lam)
    return Experience(
        rollout=rollout,
        old_logprobs_BR=logprobs_BR,
        old_values_BR=values_BR,
        advantages_BR=masked_whiten(
            advantages_BR, rollout.mask_BR
        ),  # one NaN is in all: no minibatch misses it
        returns_BR=advantages_BR + values_BR,
    )


def _as_sampled(
    actor: Actor, rollout: Rollout, spec: PpoSpec, ranks: Ranks, *, same_numerics: bool
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and values of the policy that sampled: as it wrote them down, else by a pass of its own."""
    if same_numerics and rollout.values_BR is not None:
        return rollout.logprobs_BR, torch.where(rollout.mask_BR, rollout.values_BR, 0.0)
    old = evaluate_in_parts(actor, rollout, rows_per_device=spec.rows_per_device, ranks=ranks)
    return rollout.logprobs_BR if same_numerics else old.logprobs_BR, old.values_BR


@torch.no_grad()
def evaluate_in_parts(
    actor: Actor, rollout: Rollout, *, rows_per_device: int | None, ranks: Ranks = ALONE
) -> Evaluation:
    """The actor's view of a whole rollout, without gradient, a few episodes at a time; 0 on padding.

    Of several ranks each reads its share, and all have the whole.
    """
    whole_3BR = rollout.logprobs_BR.new_zeros(3, *rollout.logprobs_BR.shape)
    for episodes, weight in ranks.passes(rollout, rows_per_device):
        part = rollout.select(episodes)
        seen = actor.evaluate(part.prompts, part.ids_BR, part.mask_BR)
        if weight:
            for whole_BR, seen_BR in zip(whole_3BR, seen, strict=True):
                whole_BR[episodes, : part.mask_BR.shape[1]] = torch.where(part.mask_BR, seen_BR, 0.0)
    return Evaluation(*ranks.total(whole_3BR))


def _accumulate(
    actor: Actor, batch: Experience, spec: PpoSpec, trained: Sequence[nn.Parameter] | None, ranks: Ranks
) -> UpdateStats:
    """This rank's part of the gradients of one optimiser step, some episodes at a time, and the figures of all ranks.

    Every mean is over the step's own token count. Of `trained` alone, where it is given: the others have none, and Adam
    leaves such weights as they are.
    """
    num_tokens = batch.rollout.num_tokens

    def learn() -> UpdateStats:
        total = UpdateStats()
        for part, weight in batch.parts(spec.rows_per_device, ranks):
            loss, figures = _losses(actor, part, spec, num_tokens=num_tokens)
            finite(float(loss.detach()), "loss")
            torch.autograd.backward(weight * loss, inputs=trained)
            if weight:
                total = added(total, figures)
        return total

    return reduce(added, ranks.together(learn))


def _losses(actor: Actor, part: Experience, spec: PpoSpec, *, num_tokens: int) -> tuple[Tensor, UpdateStats]:
    """The loss to be differentiated, and what is told about it."""
    mask_BR = part.rollout.mask_BR
    now = actor.evaluate(part.rollout.prompts, part.rollout.ids_BR, mask_BR)
    policy = policy_loss(
        now.logprobs_BR,
        part.old_logprobs_BR,
        part.advantages_BR,
        mask_BR,
        clip=spec.clip,
        num_tokens=num_tokens,
        clip_high=spec.clip_high,
        dual_clip=spec.dual_clip,
    )
    value = value_loss(
        now.values_BR,
        part.old_values_BR,
        part.returns_BR,
        mask_BR,
        clip=spec.value_clip,
        num_tokens=num_tokens,
    )
    entropy = masked_mean(now.entropy_BR, mask_BR, num_tokens=num_tokens)
    figures = UpdateStats(
        policy_loss=float(policy.loss.detach()),
        value_loss=float(value.loss.detach()),
        clip_share=float(policy.clip_share),
        value_clip_share=float(value.clip_share),
        kl_old_nats=float(policy.kl_old_nats),
        entropy_nats=float(entropy.detach()),
        ratio_first_error=float(policy.ratio_error),
    )
    loss = policy.loss + spec.value_coef * value.loss
    return loss - spec.entropy_coef * entropy if spec.entropy_coef else loss, figures


def _summary(done: list[UpdateStats], explained: Tensor) -> UpdateStats:
    means = UpdateStats(*(sum(column) / len(done) for column in zip(*done, strict=True)))
    return means._replace(
        ratio_first_error=done[0].ratio_first_error,
        explained_variance=float(explained),
        optimiser_steps=float(len(done)),
    )
