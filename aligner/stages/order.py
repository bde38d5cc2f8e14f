"""Which row comes when: decided once, from a seed, before training; so a resumed run has nothing to guess."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from aligner.data.packing import best_fit
from aligner.errors import Problem, RecipeError

CURRICULUM_SHARE = 0.5  # of the early slots at most: what lies under a line that falls from 1 to 0
Numbers = NDArray[np.int64]
Line = list[int]  # numbers of the rows that lie end to end
Lines = list[Line]  # what a device reads in one forward pass
WINDOW_STEPS = 50  # rows are sorted by length within this many steps: little padding, still well mixed


class RowBatches(Sequence[Lines]):
    """Batches of `per_pass` rows of an order, each row a line of its own."""

    def __init__(self, order: Sequence[int], per_pass: int) -> None:
        self.order, self.per_pass = order, per_pass

    def __len__(self) -> int:
        return ceil(len(self.order) / self.per_pass)

    @overload
    def __getitem__(self, index: int) -> Lines: ...
    @overload
    def __getitem__(self, index: slice) -> list[Lines]: ...
    def __getitem__(self, index: int | slice) -> Lines | list[Lines]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        start = range(len(self))[index] * self.per_pass
        return [[row] for row in self.order[start : start + self.per_pass]]


def row_order(
    *,
    rows: int,
    rows_per_step: int,
    steps: int,
    seed: int,
    lengths: Sequence[int] | None = None,
    epoch_rows: Callable[[int], Sequence[int]] | None = None,
) -> list[int]:
    """Row numbers in training order: `steps * rows_per_step` of them, every row once per epoch.

    The rows left over at the end of an epoch open the next one, so no step is ever short and no row is dropped.
    With `lengths` (tokens a row), the rows of a step have about the same length. With `epoch_rows`, an epoch (from 0)
    has the rows that it says, always `rows` of them, instead of all.
    """
    order: list[int] = []
    pool = np.zeros(0, np.int64)
    tokens = None if lengths is None else np.asarray(lengths)
    epoch = 0
    while len(order) < steps * rows_per_step:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        shuffled = torch.randperm(rows, generator=generator).numpy()
        pool = np.concatenate([pool, np.asarray(epoch_rows(epoch))[shuffled] if epoch_rows else shuffled])
        whole = len(pool) // rows_per_step * rows_per_step
        ready, pool = pool[:whole], pool[whole:]
        order += (ready if tokens is None else _grouped(ready, tokens, rows_per_step, generator)).tolist()
        epoch += 1
    return order[: steps * rows_per_step]


def pack_order(
    lengths: Sequence[int],
    *,
    room: int,
    rows: int,
    rows_per_pass: int,
    passes: int,
    seed: int,
    epoch_rows: Callable[[int], Sequence[int]] | None = None,
) -> list[Lines]:
    """`passes` batches of packed rows in training order; a line is whole rows of `room` tokens together at most.

    Every epoch shuffles its rows, `epoch_rows` as in `row_order`, packs all of them anew (`best_fit`) and shuffles the
    packs. A pass takes as many packs as hold `rows_per_pass` rows on average, give or take one; those left over at the
    end of an epoch open the next. Raises `RecipeError` where a pack alone holds more rows on average.
    """
    packs: list[Line] = []
    epochs = max(ceil(passes * rows_per_pass / rows), 1)
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        numbers = epoch_rows(epoch) if epoch_rows else range(rows)
        shuffled = [numbers[place] for place in torch.randperm(rows, generator=generator).tolist()]
        fitted = best_fit([lengths[row] for row in shuffled], room)
        packs += [
            [shuffled[index] for index in fitted[number]]
            for number in torch.randperm(len(fitted), generator=generator).tolist()
        ]
    if epochs * rows > rows_per_pass * len(packs):
        on_average = epochs * rows / len(packs)
        what = f"a pack of {room} tokens holds {on_average:.1f} rows on average, and a pass {rows_per_pass}"
        remedy = "raise rows_per_step (and rows_per_device, if it is given), or lower pack_length"
        raise RecipeError(Problem("train.packing", what, remedy))
    cuts = [number * rows_per_pass * len(packs) // (epochs * rows) for number in range(passes + 1)]
    return [packs[start:end] for start, end in pairwise(cuts)]


def padding_share(batches: Sequence[Lines], lengths: Sequence[int]) -> float:
    """Share of padding where each batch is as wide as its longest line; `lengths` are the rows' in tokens."""
    tokens = slots = 0
    for batch in batches:
        lines = [sum(lengths[row] for row in line) for line in batch]
        tokens += sum(lines)
        slots += len(lines) * max(lines)
    return 1 - tokens / max(slots, 1)


@dataclass(frozen=True)
class Curriculum:
    """`rows` rows that come in the first `until` (0..1] share of the training alone, ever more rarely."""

    rows: int
    until: float

    def early_slots(self, slots: int) -> int:
        """Slots at the beginning of `slots` in which they may come."""
        return int(self.until * slots)

    def rows_placed(self, slots: int) -> int:
        """How many of the rows come in a training of `slots`: all, or as many as make up half of the early slots."""
        return min(self.rows, int(CURRICULUM_SHARE * self.early_slots(slots)))


def with_curriculum(order: Sequence[int], curriculum: Curriculum, *, rows: int, seed: int) -> list[int]:
    """As many row numbers as `order` has, the curriculum's (`rows` and up) mixed into the ordinary ones (below `rows`).

    A curriculum row comes at most once, at a moment drawn without replacement, with chances that fall linearly to zero
    at `until`. They take half of the slots before it at most; of more rows than that, randomly drawn ones are left out.
    The ordinary rows keep their order, each once per epoch; those that find no slot any more are the last of `order`.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 - 1)  # an epoch's generator has + epoch there
    early, placed = curriculum.early_slots(len(order)), curriculum.rows_placed(len(order))
    # First arrivals of a race where slot i has the rate `early - i`: torch.multinomial, without its limit of 2^24.
    rates = torch.arange(early, 0, -1, dtype=torch.float64)
    arrivals = torch.empty(early, dtype=torch.float64).exponential_(generator=generator) / rates
    moments = arrivals.argsort()[:placed].tolist()
    numbers = torch.randperm(curriculum.rows, generator=generator)[:placed].tolist()
    drawn = dict(zip(moments, numbers, strict=True))
    ordinary = iter(order)
    return [rows + drawn[slot] if slot in drawn else next(ordinary) for slot in range(len(order))]


def _grouped(rows: Numbers, tokens: NDArray[Any], rows_per_step: int, generator: torch.Generator) -> Numbers:
    """The same rows: sorted by length inside windows, cut into steps, the steps of a window shuffled."""
    window = WINDOW_STEPS * rows_per_step
    grouped = [rows[:0]]
    for start in range(0, len(rows), window):
        part = rows[start : start + window]
        by_length = part[np.argsort(tokens[part], kind="stable")]
        steps = [by_length[i : i + rows_per_step] for i in range(0, len(by_length), rows_per_step)]
        grouped += [steps[number] for number in torch.randperm(len(steps), generator=generator).tolist()]
    return np.concatenate(grouped)


class FixedOrder(Sampler[int]):
    """A sampler that reads from a list."""

    def __init__(self, order: list[int]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)
