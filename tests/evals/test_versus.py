"""Paired differences against the normal formula and scipy's bootstrap, the rest by hand."""

from __future__ import annotations

from itertools import combinations
from math import log

import numpy as np
import pytest
from scipy.stats import bootstrap

from aligner.evals.versus import best_of_n, best_of_n_kl, chosen_mean, gap_closed_share, paired_difference


def test_samples_of_a_prompt_are_averaged_before_prompts_are():
    difference = paired_difference([[1.0], [1.0, 0.0, 0.0, 0.0]], [[0.0, 0.0], [0.0]])
    assert difference.mean == pytest.approx((1.0 + 0.25) / 2)
    assert difference.prompts == 2


def test_the_interval_is_that_of_scipys_bootstrap():
    generator = np.random.default_rng(3)
    reference = generator.normal(size=(120, 4))
    model = reference.mean(axis=1, keepdims=True) + 0.1 + 0.3 * generator.normal(size=(120, 4))
    difference = paired_difference(model.tolist(), reference.tolist())
    gains = model.mean(axis=1) - reference.mean(axis=1)
    expected = bootstrap(
        (gains,), np.mean, n_resamples=10_000, method="percentile", random_state=5
    ).confidence_interval
    assert difference.low == pytest.approx(expected.low, abs=0.003)
    assert difference.high == pytest.approx(expected.high, abs=0.003)
    # Pairing is what makes it narrow: unpaired, the interval would be several times as wide.
    unpaired = 3.92 * np.sqrt((model.mean(axis=1).var() + reference.mean(axis=1).var()) / 120)
    assert difference.high - difference.low < 0.5 * unpaired


def test_the_same_seed_gives_the_same_interval():
    scores = [[0.0], [1.0], [0.5], [0.2]]
    zeros = [[0.0]] * 4
    assert paired_difference(scores, zeros, seed=4) == paired_difference(scores, zeros, seed=4)


def test_prompts_must_be_the_same():
    with pytest.raises(ValueError, match="2 prompts against 1"):
        paired_difference([[1.0], [1.0]], [[1.0]])


def test_best_of_n_and_the_gap_closed_by_hand():
    scores = [[0.0, 1.0, 0.5], [-1.0, -0.5, 1.0]]
    assert best_of_n(scores, 2) == pytest.approx((1.0 - 0.5) / 2)
    assert best_of_n(scores, 3) == pytest.approx(1.0)
    assert gap_closed_share(0.5, 0.25, 0.75) == pytest.approx(0.5)
    assert gap_closed_share(0.0, 0.25, 0.75) == pytest.approx(-0.5)
    assert gap_closed_share(0.5, 0.25, 0.25) is None


def test_the_kl_of_best_of_n_is_that_of_the_distribution_it_draws_from():
    assert best_of_n_kl(1) == 0 and best_of_n_kl(2) == pytest.approx(log(2) - 0.5)
    count, n = (
        20_000,
        7,
    )  # equally likely answers, no two of one score: the i-th is the best with ((i+1)^n - i^n) / N^n
    edges = (np.arange(count + 1) / count) ** n
    chances = np.diff(edges)
    kl = float((chances * np.log(np.maximum(chances, 1e-300) * count)).sum())
    assert best_of_n_kl(n) == pytest.approx(kl, abs=1e-3)


def test_what_is_chosen_of_n_is_the_mean_over_all_choices():
    generator = np.random.default_rng(0)
    judge, gold = generator.normal(size=(2, 3, 6))
    for n in (1, 2, 4, 6):
        means = [
            np.mean([row[max(one, key=lambda i: liked[i])] for one in combinations(range(6), n)])
            for liked, row in zip(judge, gold, strict=True)
        ]
        assert chosen_mean(judge.tolist(), gold.tolist(), n) == pytest.approx(np.mean(means))
