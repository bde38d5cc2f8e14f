"""Mixtures: rates by hand, exact numbers, and an oracle of the cursor that knows nothing of permutations."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from hashlib import blake2b
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner.data.shares import KEPT_TURNS, Draws, Part, apportioned, draws_of, row_shares
from aligner.errors import DataError
from aligner.recipe.data import SourceSpec
from aligner.recipe.mixture import MixtureSpec


def part(count: int, *, source: int = 0, start: int = 0, tokens: float = 10.0) -> Part:
    rows = list(range(start, start + count))
    return Part(f"part {source}", source, rows, [7 * row + 1 for row in rows], tokens)


def sources(*shares: float | None) -> list[SourceSpec]:
    return [SourceSpec(path="x", share=share) for share in shares]


def quotas(counts: list[int], mixture: MixtureSpec, specs: list[SourceSpec] | None = None) -> list[int]:
    parts = [part(count, source=i, start=1000 * i) for i, count in enumerate(counts)]
    return draws_of(parts, specs or sources(*[None] * len(counts)), mixture).quotas


def test_rates_are_those_of_flan_and_t5():
    by_examples = MixtureSpec(by="examples", rows=400)
    assert quotas([100, 300], by_examples) == [100, 300]
    assert quotas([100, 900], MixtureSpec(by="examples", rows=400, rate_cap=300)) == [100, 300]
    assert quotas([100, 900], MixtureSpec(by="temperature", temperature=1, rows=1000)) == [100, 900]
    assert quotas([100, 900], MixtureSpec(by="temperature", temperature=2, rows=400)) == [100, 300]
    capped = MixtureSpec(by="temperature", temperature=2, rate_cap=400, rows=300)
    assert quotas([100, 900], capped) == [100, 200]
    assert quotas([100, 900], MixtureSpec(by="examples")) == [100, 900]  # as many rows as there are
    hot = quotas([100, 900], MixtureSpec(by="temperature", temperature=1000, rows=1000))
    assert hot == [round(1000 / (1 + 9**0.001)), round(1000 * 9**0.001 / (1 + 9**0.001))]


def test_shares_and_what_is_left_of_them():
    assert quotas([10, 10], MixtureSpec(by="share", rows=50), sources(0.9, 0.1)) == [45, 5]
    rest = MixtureSpec(by="examples", rows=1000)
    assert quotas([10, 100, 300], rest, sources(0.2, None, None)) == [200, 200, 600]
    epochs = [SourceSpec(path="x", epochs=e) for e in (0.5, None, 3)]
    assert quotas([10, 10, 10], MixtureSpec(by="epochs"), epochs) == [5, 10, 30]


def test_shares_of_tokens_are_of_tokens():
    parts = [part(50, source=0, tokens=100), part(50, source=1, tokens=20), part(150, source=2, tokens=40)]
    mixture = MixtureSpec(by="examples", share_of="tokens", rows=10_000)
    counts = draws_of(parts, sources(0.25, None, None), mixture).quotas
    tokens = [count * one.tokens for count, one in zip(counts, parts, strict=True)]
    assert tokens[0] / sum(tokens) == pytest.approx(0.25, abs=1e-3)
    assert counts[2] == pytest.approx(3 * counts[1], abs=2)  # the others' rows still by their numbers
    both = draws_of(parts[:2], sources(0.5, 0.5), MixtureSpec(by="share", share_of="tokens", rows=600))
    assert both.quotas == [100, 500]


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=8), st.integers(1, 10_000))
def test_an_epoch_has_exactly_its_rows(weights, total):
    shares = [weight / sum(weights) for weight in weights]
    counts = apportioned(shares, total)
    assert sum(counts) == total
    assert all(abs(count - share * total) < 1 + 1e-6 for count, share in zip(counts, shares, strict=True))


def test_the_largest_remainders_are_rounded_up():
    assert apportioned([0.5, 0.3, 0.2], 7) == [4, 2, 1]
    assert apportioned([1 / 3] * 3, 10) == [4, 3, 3]


@given(st.integers(1, 40), st.integers(1, 100), st.integers(1, 8))
def test_every_row_is_read_before_any_is_read_again(count, quota, epochs):
    draws = Draws([part(count, start=5), part(3, source=1, start=100)], [quota, 2])
    read = [row for epoch in range(epochs) for row in draws.epoch(epoch)]
    mine = [row for row in read if row < 100]
    assert len(mine) == quota * epochs and len(read) == (quota + 2) * epochs
    for start in range(0, len(mine), count):
        turn = mine[start : start + count]
        assert len(set(turn)) == len(turn) <= count
        assert set(turn) <= set(range(5, 5 + count))
    assert draws.epoch(epochs - 1) == Draws(draws.parts, draws.quotas).epoch(
        epochs - 1
    )  # nothing is remembered


def test_each_turn_has_an_order_of_its_own_that_goes_by_luck():
    draws = Draws([part(200)], [200])
    first, second = draws.epoch(0), draws.epoch(1)
    assert sorted(first) == sorted(second) == list(range(200)) and first != second != sorted(second)
    one = part(200)
    renumbered = Part(one.name, one.source, one.rows[::-1], one.luck[::-1], one.tokens)
    assert Draws([renumbered], [200]).epoch(0) == first  # the place among the training rows does not matter
    halves = Draws([part(200)], [100])
    assert halves.epoch(0) + halves.epoch(1) == first


def test_orders_that_were_asked_for_before_are_the_same_and_but_a_few_are_kept():
    one = part(50, start=7)
    by_definition = [
        sorted(
            one.rows,
            key=lambda row, turn=turn: blake2b(f"{7 * row + 1}|{turn}".encode(), digest_size=8).digest(),
        )
        for turn in range(9)
    ]
    for turn in (0, 1, 2, 8, 3, 4, 5, 6, 7, 0, 8, 1):
        assert one.turn(turn) == by_definition[turn] == one.turn(turn)
        assert one.turn(turn) is one.turn(turn)
    assert len(one._turns) <= KEPT_TURNS
    assert asdict(one) == asdict(part(50, start=7)) and one == part(
        50, start=7
    )  # what is stored of it is as before


def test_what_would_get_no_rows_is_an_error():
    with pytest.raises(DataError, match="an epoch of 5 rows has none of part 0"):
        quotas([1, 900], MixtureSpec(by="examples", rows=5))
    for spec, shares in ((MixtureSpec(by="share"), (0.5, 0.5)), (MixtureSpec(by="examples"), (0.1, None))):
        with pytest.raises(DataError, match=r"data\.train\.1: no rows are left of this source"):
            draws_of([part(5)], sources(*shares), spec)


def test_rates_of_many_parts_add_up():
    parts = [part(n, source=i) for i, n in enumerate((4, 9, 16, 25))]
    found = row_shares(parts, sources(*[None] * 4), MixtureSpec(by="temperature", temperature=2))
    assert found == pytest.approx([sqrt(n) / (2 + 3 + 4 + 5) for n in (4, 9, 16, 25)])
    assert Counter(map(type, found)) == {float: 4}
