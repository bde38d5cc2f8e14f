"""Krippendorff's alpha: by hand, from the literature, and in the report of a source."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner.data.agreement import agreement_by_criterion, alpha
from aligner.data.build import build_pairs
from aligner.data.rows import Origin, Rated
from aligner.errors import DataError
from aligner.recipe.data import PairDataSpec, SourceSpec
from tests.data.test_readers import write
from tests.tiny import tiny_tokenizer

pytest.importorskip("krippendorff", reason="the extra `data` is not installed")
# Four observers of twelve units, none said of "*": Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), part C.
OBSERVERS = [
    "1 2 3 3 2 1 4 1 2 * * *",
    "1 2 3 3 2 2 4 1 2 5 * 3",
    "* 3 3 3 2 3 4 2 2 5 1 *",
    "1 2 3 3 2 4 4 1 2 5 1 *",
]


def literature() -> list[list[float | None]]:
    rows = [[None if mark == "*" else float(mark) for mark in line.split()] for line in OBSERVERS]
    return [list(unit) for unit in zip(*rows, strict=True)]


def by_pairs(units: list[list[float | None]]) -> float:
    """Alpha from its definition: mean squared difference within units over that of all values, all pairs of them."""
    shared = [there for unit in units if len(there := [mark for mark in unit if mark is not None]) > 1]
    pool = [mark for unit in shared for mark in unit]
    observed = sum(sum((a - b) ** 2 for a in unit for b in unit) / (len(unit) - 1) for unit in shared) / len(
        pool
    )
    expected = sum((a - b) ** 2 for a in pool for b in pool) / (len(pool) * (len(pool) - 1))
    return 1 - observed / expected


def test_alpha_by_hand():
    # Units (1, 1) and (1, 3). Within: differences 0 and 2, so (0 + 2 x 4) / 4 values = 2. Among 1, 1, 1, 3: of 12 ordered
    # pairs 6 differ, by 2, so 24 / 12 = 2. 1 - 2 / 2 = 0.
    assert alpha([(1.0, 1.0), (1.0, 3.0)]) == pytest.approx(0.0)
    # (1, 1) and (3, 3): nobody differs within; by hand 1.
    assert alpha([(1.0, 1.0), (3.0, 3.0)]) == pytest.approx(1.0)
    # (1, 3) and (3, 1): within 4, among 1, 1, 3, 3 8 x 4 / 12. 1 - 4 / (8 / 3) = -0.5.
    assert alpha([(1.0, 3.0), (3.0, 1.0)]) == pytest.approx(-0.5)


def test_alpha_is_that_of_the_literature():
    assert alpha(literature()) == pytest.approx(0.849, abs=5e-4) == by_pairs(literature())


@given(st.lists(st.lists(st.one_of(st.none(), st.integers(1, 5).map(float)), max_size=4), max_size=6))
def test_alpha_is_that_of_its_definition_whoever_said_what(units):
    found = alpha(units)
    shared = [there for unit in units if len(there := [mark for mark in unit if mark is not None]) > 1]
    if len({mark for unit in shared for mark in unit}) < 2:
        assert found is None
    else:
        assert found == pytest.approx(by_pairs(units), abs=1e-9)
        assert alpha([unit[::-1] for unit in units]) == pytest.approx(found, abs=1e-9)


def test_criteria_are_apart():
    rows = [("help", (1.0, 1.0)), ("help", (3.0, 3.0)), ("harm", (2.0, 2.0)), ("tone", (1.0, None))]
    rated = [Rated(Origin("a", 1), criterion, values) for criterion, values in rows]
    assert agreement_by_criterion(rated) == {"help": pytest.approx(1.0), "harm": None, "tone": None}
    assert agreement_by_criterion([]) == {}


def rated_file(tmp_path) -> PairDataSpec:
    """The literature's units as twelve answers, two a prompt."""
    answers = [{"text": f"answer {i}", "ratings": {"quality": unit}} for i, unit in enumerate(literature())]
    rows = [{"prompt": f"Say {i}", "answers": answers[2 * i : 2 * i + 2]} for i in range(6)]
    return PairDataSpec(train=[SourceSpec(path=str(write(tmp_path / "a.jsonl", *rows)))])


def test_the_report_tells_the_agreement_of_a_source(tmp_path):
    (report,) = build_pairs(rated_file(tmp_path), tiny_tokenizer(), seed=0).report.train
    assert report.agreement == {"quality": pytest.approx(0.849, abs=5e-4)}
    # means by hand: 1 2.25 | 3 3 | 2 2.5 | 4 1.25 | 2 5 | 1 3
    assert (report.rows_read, report.rows_used, report.dropped) == (6, 5, {"tie": 1})


def test_a_missing_library_is_told_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "krippendorff", None)
    with pytest.raises(DataError, match=r"needs the package krippendorff\n.*aligner\[data\]"):
        build_pairs(rated_file(tmp_path), tiny_tokenizer(), seed=0)
