"""Two models on the same prompts: paired differences, best-of-n, and the share of that gap a model closes.

Scores are lists of lists: for each prompt, one score a sample. Samples of a prompt are averaged first, prompts are
the unit that is resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, log

import numpy as np

Scores = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Difference:
    """Mean of (model - reference) over prompts, and its 95 % interval."""

    mean: float
    low: float
    high: float
    prompts: int


def prompt_means(scores: Scores) -> np.ndarray:
    """The mean score of each prompt: (prompts,)."""
    return np.asarray([np.mean(samples) for samples in scores], dtype=np.float64)


def paired_difference(
    model: Scores, reference: Scores, *, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """Paired percentile bootstrap over prompts (Efron 1979): how much higher the model scores than the reference.

    The two may have different numbers of samples a prompt; they must have the same prompts in the same order.
    """
    if len(model) != len(reference):
        raise ValueError(f"{len(model)} prompts against {len(reference)}")
    gains = prompt_means(model) - prompt_means(reference)
    generator = np.random.default_rng(seed)
    # In pieces of 1000 resamples, so that memory stays small for many prompts.
    pieces = [
        gains[generator.integers(len(gains), size=(min(1000, resamples - at), len(gains)))].mean(axis=1)
        for at in range(0, resamples, 1000)
    ]
    low, high = np.percentile(np.concatenate(pieces), [2.5, 97.5])
    return Difference(float(gains.mean()), float(low), float(high), len(gains))


def best_of_n(scores: Scores, n: int) -> float:
    """Mean over prompts of the best score among the first n samples: what choosing alone could reach."""
    return float(np.mean([max(samples[:n]) for samples in scores]))


def best_of_n_kl(n: int) -> float:
    """KL of best-of-n to the model it chooses from: log n - (n - 1) / n, in nats per response.

    Stiennon et al. 2020 (arXiv:2009.01325, appendix G.3). Exact where no two responses score the same; else what it
    can be at most (Beirami et al. 2024, arXiv:2401.01879). By hand: n = 1 -> 0, n = 2 -> log 2 - 1/2.
    """
    return log(n) - (n - 1) / n


def chosen_mean(judge: Scores, scores: Scores, n: int) -> float:
    """Mean over prompts of the score of the response that `judge` likes best of n.

    Over all choices of n among the prompt's N samples, so nothing is drawn (Nakano et al. 2021, arXiv:2112.09332,
    appendix I): the i-th lowest by `judge`, from 0, is the best of C(i, n - 1) of the C(N, n) choices.
    """
    means = []
    for liked, values in zip(judge, scores, strict=True):
        order = np.argsort(liked, kind="stable")
        chances = [comb(place, n - 1) / comb(len(order), n) for place in range(len(order))]
        means.append(float(np.asarray(values)[order] @ np.asarray(chances)))
    return float(np.mean(means))


def gap_closed_share(model: float, reference: float, best: float) -> float | None:
    """(model - reference) / (best - reference); None when the reference is already as good as its best."""
    return (model - reference) / (best - reference) if best > reference else None
