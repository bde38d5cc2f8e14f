"""Preference accuracy against hand numbers, scipy's interval and a bootstrap spelt out."""

from __future__ import annotations

import math
import random

import pytest
from scipy.stats import binomtest

from aligner.evals.preference import (
    SamplePair,
    accuracy_by_kind,
    calibration_error,
    own_samples_accuracy,
    pair_accuracy,
    pairs_of_samples,
    wilson_interval,
)


def test_ties_count_one_half():
    accuracy = pair_accuracy([2.0, -1.0, 0.0, 0.5])
    assert (accuracy.share, accuracy.count) == (0.625, 4)


@pytest.mark.parametrize(("successes", "count"), [(0, 7), (7, 7), (8, 10), (61, 100), (1, 1000)])
def test_wilson_interval_is_scipys(successes: int, count: int):
    expected = binomtest(successes, count).proportion_ci(method="wilson")
    assert wilson_interval(successes, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_kinds_are_scored_apart_and_nameless_pairs_left_out():
    by_kind = accuracy_by_kind([1.0, -1.0, 3.0, -9.0], ["b", "b", "a", ""])
    assert {kind: accuracy.share for kind, accuracy in by_kind.items()} == {"a": 1.0, "b": 0.5}
    assert list(by_kind) == ["a", "b"]


def test_pairs_of_one_prompt_widen_the_interval():
    generator = random.Random(1)
    rights = [generator.random() < 0.7 for _ in range(40)]
    margins = [1.0 if right else -1.0 for right in rights for _ in range(25)]
    alone = [(i,) for i in range(1000)]
    shared = [(i // 25,) for i in range(1000)]
    assert pair_accuracy(margins, alone) == pair_accuracy(margins)
    found = pair_accuracy(margins, shared)
    share = sum(rights) / 40
    assert (found.share, found.count) == (share, 1000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(share * (1 - share) / 40), rel=0.1)
    by_kind = accuracy_by_kind(margins, ["a"] * 500 + ["b"] * 500, shared)
    assert by_kind["a"] == pair_accuracy(margins[:500], shared[:500])
    assert pair_accuracy([1.0] * 4, [(1,), (1,), (2,), (2,)]) == pair_accuracy(
        [1.0] * 4
    )  # no spread to resample


def test_calibration_error_by_hand():
    # All margins +-ln 3: confidence .75. Three of four right: no error. One of four right: error .5.
    margin = math.log(3)
    assert calibration_error([margin, margin, margin, -margin]) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error([margin, -margin, -margin, -margin]) == pytest.approx(0.5)
    # Two bins: confidence .75 with accuracy 1, confidence .5 (ties) with accuracy .5.
    assert calibration_error([margin, 0.0]) == pytest.approx(0.5 * 0.25)
    assert calibration_error([1e6, -1e6]) == pytest.approx(0.5)


def test_a_calibrated_scorer_has_almost_no_error_and_an_overconfident_one_has():
    generator = random.Random(0)
    sizes = [generator.uniform(0, 4) for _ in range(20_000)]
    margins = [size if generator.random() < 1 / (1 + math.exp(-size)) else -size for size in sizes]
    assert calibration_error(margins) < 0.01
    assert calibration_error([5 * margin for margin in margins]) > 0.08


def test_pairs_of_samples_are_distinct_texts_of_different_gold():
    pairs = pairs_of_samples([["a", "b", "a", "c"], ["x", "x"]], [[1.0, 0.0, 1.0, 0.0], [1.0, 0.0]])
    assert pairs == [SamplePair(0, 0, 1), SamplePair(0, 0, 3)]


def test_own_samples_accuracy_of_both_scorers():
    pairs = [SamplePair(0, 0, 1), SamplePair(0, 0, 2), SamplePair(1, 1, 0), SamplePair(2, 0, 1)]
    rewards = [[3.0, 1.0, 4.0], [0.0, 2.0], [1.0, 1.0]]  # right, wrong, right, tie -> 2.5 of 4
    likelihoods = [[-9.0, -1.0, -1.0], [-5.0, -2.0], [-1.0, -3.0]]  # wrong, wrong, right, right -> 2 of 4
    own = own_samples_accuracy(pairs, rewards, likelihoods)
    assert own is not None
    assert (own.reward.share, own.likelihood.share, own.gain.share) == (0.625, 0.5, 0.125)
    assert own.reward.count == 4
    assert own_samples_accuracy([], [], []) is None


def test_the_interval_over_prompts_is_wide_when_pairs_of_a_prompt_agree():
    # 40 prompts of 25 equal pairs each hold 40 facts, not 1000: the interval is that of 40.
    generator = random.Random(1)
    rights = [generator.random() < 0.7 for _ in range(40)]
    pairs = [SamplePair(prompt, 0, 1) for prompt in range(40) for _ in range(25)]
    rewards = [[1.0, 0.0] if right else [0.0, 1.0] for right in rights]
    own = own_samples_accuracy(pairs, rewards, rewards)
    assert own is not None
    share = sum(rights) / 40
    half = 1.96 * math.sqrt(share * (1 - share) / 40)
    assert own.reward.high - own.reward.low == pytest.approx(2 * half, rel=0.1)
    assert (own.gain.low, own.gain.high) == (0.0, 0.0)
