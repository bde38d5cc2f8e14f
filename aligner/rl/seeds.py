"""Random streams that depend on the recipe's seed and a place in the run, and on nothing that happened before."""

from __future__ import annotations

import hashlib

import torch


def rows_at(start: int, count: int, *, num_rows: int, seed: int, purpose: str) -> list[int]:
    """`count` row numbers from place `start` on of a walk through reshuffled epochs of `num_rows` rows.

    A function of its arguments alone; the rows may straddle epochs, so that none is left out.
    """
    epochs = range(start // num_rows, (start + count - 1) // num_rows + 1)
    order = [row for epoch in epochs for row in _shuffled(num_rows, seed=seed, purpose=purpose, epoch=epoch)]
    offset = start - epochs[0] * num_rows
    return order[offset : offset + count]


def _shuffled(count: int, *, seed: int, purpose: str, epoch: int) -> list[int]:
    return list(torch.randperm(count, generator=generator(seed, purpose, epoch)).tolist())


def derived_seed(seed: int, purpose: str, *place: int) -> int:
    """A 63-bit seed for one purpose at one place (a step, an epoch), unrelated to its neighbours'."""
    text = f"{seed}/{purpose}/{'/'.join(map(str, place))}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *place: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for one purpose at one place."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, purpose, *place))
