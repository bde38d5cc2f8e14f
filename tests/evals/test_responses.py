"""Response statistics by hand."""

from __future__ import annotations

import pytest

from aligner.evals.responses import repetition_share, response_statistics


def test_repetition_by_hand():
    assert repetition_share([1, 2, 1, 2, 1], n=2) == pytest.approx(0.5)
    assert repetition_share([1, 2, 3, 4, 5]) == 0.0
    assert repetition_share([7] * 8) == pytest.approx(4 / 5)
    assert repetition_share([1, 2, 3]) == 0.0


def test_statistics_by_hand():
    statistics = response_statistics(
        ["a", "b", "a", "c"], [[1], [1, 2, 3], [1], [7] * 8], [True, True, True, False]
    )
    assert statistics.tokens == pytest.approx(13 / 4)
    assert statistics.finished == 0.75
    assert statistics.distinct == 0.75
    assert statistics.repetition == pytest.approx(0.8 / 4)
