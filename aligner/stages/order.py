"""Which row comes when: decided once, from a seed, before training; so a resumed run has nothing to guess."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

WINDOW_STEPS = 50  # rows are sorted by length within this many steps: little padding, still well mixed


def row_order(
    *, rows: int, rows_per_step: int, steps: int, seed: int, lengths: Sequence[int] | None = None
) -> list[int]:
    """Row numbers in training order: `steps * rows_per_step` of them, every row once per epoch.

    The rows left over at the end of an epoch open the next one, so no step is ever short and no row is dropped.
    With `lengths` (tokens a row), the rows of a step have about the same length.
    """
    order: list[int] = []
    pool: list[int] = []
    epoch = 0
    while len(order) < steps * rows_per_step:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        pool += torch.randperm(rows, generator=generator).tolist()
        whole = len(pool) // rows_per_step * rows_per_step
        ready, pool = pool[:whole], pool[whole:]
        order += ready if lengths is None else _grouped(ready, lengths, rows_per_step, generator)
        epoch += 1
    return order[: steps * rows_per_step]


def _grouped(
    rows: list[int], lengths: Sequence[int], rows_per_step: int, generator: torch.Generator
) -> list[int]:
    """The same rows: sorted by length inside windows, cut into steps, the steps of a window shuffled."""
    window = WINDOW_STEPS * rows_per_step
    grouped: list[int] = []
    for start in range(0, len(rows), window):
        by_length = sorted(rows[start : start + window], key=lambda row: lengths[row])
        steps = [by_length[i : i + rows_per_step] for i in range(0, len(by_length), rows_per_step)]
        for number in torch.randperm(len(steps), generator=generator).tolist():
            grouped += steps[number]
    return grouped


class FixedOrder(Sampler[int]):
    """A sampler that reads from a list."""

    def __init__(self, order: list[int]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)
