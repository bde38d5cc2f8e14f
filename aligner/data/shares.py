"""How many rows of each part of a mixture an epoch reads, and which: each part is gone through in turn, over and over.

FLAN (arXiv:2109.01652, 2.1) and T5 (arXiv:1910.10683, 3.5.2): rates as min(n, K), or as min(n, K)^(1/T).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from math import fsum

from aligner.errors import DataError, Problem
from aligner.recipe.data import SourceSpec
from aligner.recipe.mixture import MixtureSpec

KEPT_TURNS = 4  # of a part: an epoch has one or two, and is asked for by the plan and by the training


@dataclass(frozen=True)
class Part:
    """Rows that have one rate: those of a source, or of one of its files (`name`).

    `rows`: their numbers among the training rows; `luck`: a random number of each; `tokens`: their mean length.
    """

    name: str
    source: int
    rows: list[int]
    luck: list[int]
    tokens: float

    def turn(self, number: int) -> list[int]:
        """Its rows in the order of a turn (from 0); the last few orders are kept, since plans ask for them again."""
        if number not in self._turns:
            for old in list(self._turns)[: 1 - KEPT_TURNS]:
                del self._turns[old]
            drawn = [_mixed(luck, number) for luck in self.luck]
            order = sorted(range(len(drawn)), key=drawn.__getitem__)
            self._turns[number] = [self.rows[i] for i in order]
        return self._turns[number]

    @cached_property
    def _turns(self) -> dict[int, list[int]]:
        return {}


@dataclass(frozen=True)
class Draws:
    """Which rows the epochs of a mixture read: `quotas[i]` of `parts[i]`, always as many."""

    parts: list[Part]
    quotas: list[int]

    @property
    def rows_per_epoch(self) -> int:
        """Rows of every epoch, repeats counted."""
        return sum(self.quotas)

    def epoch(self, number: int) -> list[int]:
        """Row numbers of an epoch (from 0), part by part: each part goes on where the epoch before it left off."""
        both = zip(self.parts, self.quotas, strict=True)
        return [row for part, quota in both for row in _turns(part, number * quota, quota)]

    def rows_of(self, source: int) -> int:
        """Rows an epoch reads of a source."""
        both = zip(self.parts, self.quotas, strict=True)
        return sum(quota for part, quota in both if part.source == source)


def _turns(part: Part, start: int, count: int) -> list[int]:
    """`count` rows from the `start`-th on, in an endless reading of all rows, each time in another order."""
    taken: list[int] = []
    while len(taken) < count:
        turn, offset = divmod(start + len(taken), len(part.rows))
        taken += part.turn(turn)[offset : offset + count - len(taken)]
    return taken


def _mixed(luck: int, turn: int) -> bytes:
    return blake2b(f"{luck}|{turn}".encode(), digest_size=8).digest()


def draws_of(parts: Sequence[Part], sources: Sequence[SourceSpec], mixture: MixtureSpec) -> Draws:
    """The draws that a mixture asks for; `parts` as `each_of` says, none of them empty.

    Raises `DataError` where a source has no rows (its share would go to the others) or a part gets none of an epoch.
    """
    empty = set(range(len(sources))) - {part.source for part in parts}
    if empty:
        what, remedy = (
            "no rows are left of this source",
            "loosen what drops them (data.clean, cap, hold-out), or take it out",
        )
        raise DataError([Problem(f"data.train.{number}", what, remedy) for number in sorted(empty)])
    if mixture.by == "epochs":
        quotas = [round((sources[part.source].epochs or 1) * len(part.rows)) for part in parts]
    else:
        total = mixture.rows or sum(len(part.rows) for part in parts)
        quotas = apportioned(row_shares(parts, sources, mixture), total)
    starved = [part.name for part, quota in zip(parts, quotas, strict=True) if not quota]
    if starved:
        what = f"an epoch of {sum(quotas)} rows has none of {', '.join(starved[:3])}"
        more = "epochs" if mixture.by == "epochs" else "rows or a larger share"
        remedy = f"give it more {more}, or leave the source out"
        raise DataError(Problem("data.mixture", what, remedy))
    return Draws(list(parts), quotas)


def each_of(source: SourceSpec, mixture: MixtureSpec) -> str:
    """What has a rate of its own in a source: "file" or "source"; a share is one of the whole source."""
    rates = mixture.by in ("examples", "temperature") and source.share is None
    return (mixture.each or "file") if rates else "source"


def row_shares(parts: Sequence[Part], sources: Sequence[SourceSpec], mixture: MixtureSpec) -> list[float]:
    """Each part's share of an epoch's rows; they add up to 1. Sources without a share divide the rest by rates."""
    given = [sources[part.source].share for part in parts]
    rates = [0.0 if share else _rate(part, mixture) for part, share in zip(parts, given, strict=True)]
    all_rates = fsum(rates)
    rest = 1 - fsum(share or 0.0 for share in given)
    shares = [share or rest * rate / all_rates for share, rate in zip(given, rates, strict=True)]
    if mixture.share_of == "tokens":
        by_rate = fsum(rate * part.tokens for rate, part in zip(rates, parts, strict=True))
        lengths = [
            part.tokens if share else by_rate / all_rates for share, part in zip(given, parts, strict=True)
        ]
        shares = [share / length for share, length in zip(shares, lengths, strict=True)]
    total = fsum(shares)
    return [share / total for share in shares]


def _rate(part: Part, mixture: MixtureSpec) -> float:
    counted = min(len(part.rows), mixture.rate_cap or len(part.rows))
    return float(counted ** (1 / (mixture.temperature or 1)))


def apportioned(shares: Sequence[float], total: int) -> list[int]:
    """`total` divided by shares that add up to 1, exactly: the largest remainders are rounded up (Hamilton).

    By hand: .5, .3, .2 of 7 are 3.5, 2.1, 1.4 -> 4, 2, 1.
    """
    whole = [int(share * total) for share in shares]
    order = sorted(range(len(shares)), key=lambda i: (whole[i] - shares[i] * total, i))
    for i in order[: total - sum(whole)]:
        whole[i] += 1
    return whole
