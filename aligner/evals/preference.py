"""Preference pairs: how often a scorer puts the better answer first, and how far to trust that number.

A margin is score(better) - score(worse); a scorer is a reward model, or a model's own log-likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aligner.data.tokens import PairRow

Z_95 = 1.959963984540054  # two-sided 95 % point of the normal distribution
PAIR_RESAMPLES = 2_000

PromptIds = tuple[int, ...]


@dataclass(frozen=True)
class Accuracy:
    """A share of pairs (or a difference of two shares), its 95 % interval, and the number of pairs behind it."""

    share: float
    low: float
    high: float
    count: int


def wilson_interval(successes: float, count: int, *, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval for a share (Wilson 1927): it stays within 0..1 and holds for small counts.

    By hand: 8 of 10 at 95 % -> (.4902, .9433).
    """
    share = successes / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def prompts_of(pairs: Sequence[PairRow]) -> list[PromptIds]:
    """What each pair answers: the token ids of its prompt."""
    return [tuple(pair.chosen_ids[: pair.prompt_length]) for pair in pairs]


def pair_accuracy(margins: Sequence[float], prompts: Sequence[PromptIds] = ()) -> Accuracy:
    """Share of pairs with a margin above 0, ties counting one half, with Wilson's interval.

    Where a prompt has several pairs they hang together: the interval is then a bootstrap over prompts, but never
    tighter than Wilson's (where all pairs agree, a bootstrap sees no spread at all).
    """
    wins = _wins(margins)
    low, high = wilson_interval(float(wins.sum()), len(wins))
    if len(set(prompts)) < len(prompts):
        numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        groups = np.asarray([numbers[prompt] for prompt in prompts])
        over_prompts = _clustered(wins, groups, _cluster_counts(groups, PAIR_RESAMPLES, seed=0))
        low, high = min(low, over_prompts.low), max(high, over_prompts.high)
    return Accuracy(float(wins.mean()), low, high, len(wins))


def accuracy_by_kind(
    margins: Sequence[float], kinds: Sequence[str], prompts: Sequence[PromptIds] = ()
) -> dict[str, Accuracy]:
    """`pair_accuracy` for each kind of pair, in alphabetical order; pairs of no kind are left out."""
    found = {}
    for kind in sorted({kind for kind in kinds if kind}):
        at = [i for i, other in enumerate(kinds) if other == kind]
        found[kind] = pair_accuracy([margins[i] for i in at], [prompts[i] for i in at] if prompts else ())
    return found


def calibration_error(margins: Sequence[float], *, bins: int = 10) -> float:
    """Expected calibration error of the Bradley-Terry probability sigmoid(margin), 0 (perfect) to .5.

    A pair's confidence is the probability of the answer the scorer prefers, .5 to 1, in `bins` equal bins; the error
    is the mean over pairs of |accuracy - confidence| of their bin (Guo et al. 2017, arXiv:1706.04599).
    """
    wins = _wins(margins)
    confidence = 1.0 / (1.0 + np.exp(-np.minimum(np.abs(np.asarray(margins, dtype=np.float64)), 700.0)))
    index = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    return float(
        sum(
            np.sum(index == b) / len(wins) * abs(wins[index == b].mean() - confidence[index == b].mean())
            for b in np.unique(index)
        )
    )


@dataclass(frozen=True)
class SamplePair:
    """Two different samples for one prompt, by number; `better` has the higher gold reward."""

    prompt: int
    better: int
    worse: int


def pairs_of_samples(
    responses: Sequence[Sequence[str]], golds: Sequence[Sequence[float]]
) -> list[SamplePair]:
    """All pairs of different texts with different gold rewards, prompt by prompt; a repeated text counts once.

    `responses` and `golds` hold the samples of each prompt in the same order.
    """
    pairs = []
    for prompt, (texts, rewards) in enumerate(zip(responses, golds, strict=True)):
        first = [i for i in range(len(texts)) if texts[i] not in texts[:i]]
        pairs += [SamplePair(prompt, i, j) for i in first for j in first if rewards[i] > rewards[j]]
    return pairs


@dataclass(frozen=True)
class OwnSamples:
    """A reward model against a model's own log-likelihood on the same pairs; `gain` is reward minus likelihood."""

    reward: Accuracy
    likelihood: Accuracy
    gain: Accuracy


def own_samples_accuracy(
    pairs: Sequence[SamplePair],
    rewards: Sequence[Sequence[float]],
    likelihoods: Sequence[Sequence[float]],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> OwnSamples | None:
    """Pooled accuracy of both scorers; intervals from a bootstrap over prompts, since a prompt's pairs hang together.

    None when no prompt has two samples of different gold.
    """
    if not pairs:
        return None
    prompts = np.asarray([pair.prompt for pair in pairs])
    by_reward = _wins([rewards[p.prompt][p.better] - rewards[p.prompt][p.worse] for p in pairs])
    by_likelihood = _wins([likelihoods[p.prompt][p.better] - likelihoods[p.prompt][p.worse] for p in pairs])
    counts = _cluster_counts(prompts, resamples, seed)
    return OwnSamples(
        _clustered(by_reward, prompts, counts),
        _clustered(by_likelihood, prompts, counts),
        _clustered(by_reward - by_likelihood, prompts, counts),
    )


def _wins(margins: Sequence[float]) -> np.ndarray:
    """1 for a pair in the right order, .5 for a tie, 0 otherwise."""
    values: np.ndarray = np.asarray(margins, dtype=np.float64)
    wins: np.ndarray = (values > 0) + 0.5 * (values == 0)
    return wins


def _cluster_counts(prompts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How often each distinct prompt is drawn in each resample: (resamples, prompts)."""
    size = len(np.unique(prompts))
    return np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=resamples)


def _clustered(values: np.ndarray, prompts: np.ndarray, counts: np.ndarray) -> Accuracy:
    _, index = np.unique(prompts, return_inverse=True)
    sums, sizes = np.bincount(index, weights=values), np.bincount(index)
    means = (counts @ sums) / (counts @ sizes)
    low, high = np.percentile(means, [2.5, 97.5])
    return Accuracy(float(values.mean()), float(low), float(high), len(values))
