"""Random streams that depend on the recipe's seed and a place in the run, and on nothing that happened before."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, purpose: str, *place: int) -> int:
    """A 63-bit seed for one purpose at one place (a step, an epoch), unrelated to its neighbours'."""
    text = f"{seed}/{purpose}/{'/'.join(map(str, place))}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *place: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for one purpose at one place."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, purpose, *place))
