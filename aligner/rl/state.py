"""What a checkpoint holds: the trained weights, the optimiser's moments, every random state, and how far PPO has come.

In PPO the learning rate, the prompts and the sampling noise of a step are functions of (recipe, step), so they need no
cursor and no schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aligner.errors import Problem, RunError
from aligner.rl.ranks import Ranks
from aligner.run.seed import rng_state, set_rng_state

WEIGHT, MOMENT = "weight.", "adam."  # `adam.` whichever optimiser it is
OTHERS = "random_of_ranks"  # the random states of all ranks but the first, by number


@dataclass
class Progress:
    """What decides the next steps and is no function of (recipe, step)."""

    kl_coef: float
    ptx_rows: int = 0  # blocks of the PTX mix that were read
    first_length: float | None = None  # mean tokens of a response in the first step
    best_step: int | None = None  # whose look had the highest reward
    best_reward: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint holds it; JSON gives every float back bit by bit."""
        return asdict(self)

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Go back to what `to_json` gave; what an older version did not store stays as it is."""
        for name, value in stored.items():
            setattr(self, name, value)


def training_state(
    named: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (for safetensors) and JSON-able values from which `restore` goes on bit by bit."""
    tensors: dict[str, Tensor] = {}
    for name, weight in named.items():
        tensors[f"{WEIGHT}{name}"] = weight.detach()
        for key, value in optimizer.state[weight].items():
            tensors[f"{MOMENT}{key}.{name}"] = value
    random = rng_state()
    return tensors | random.tensors, {"random": random.state}


def random_of_ranks(ranks: Ranks) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The random states of all ranks but the first, whose own `training_state` has; nothing where it is alone."""
    others = dict(enumerate(ranks.together(rng_state)[1:], start=1))
    tensors = {f"rank{rank}.{name}": t for rank, one in others.items() for name, t in one.tensors.items()}
    return tensors, {OTHERS: {str(rank): one.state for rank, one in others.items()}} if others else {}


def restore_random(ranks: Ranks, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Put this rank's random states back; the first's where it had none, since there were fewer ranks."""
    prefix, own = f"rank{ranks.rank}.", state.get(OTHERS, {}).get(str(ranks.rank))
    if own is None:
        set_rng_state(tensors, state["random"])
    else:
        mine = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        set_rng_state(mine, own)


def restore(
    named: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> None:
    """Put weights, moments and random states back. RunError when a weight is missing, extra or of another shape.

    A weight that no gradient had reached when it was saved has no moments, and gets none: Adam starts them then.
    """
    restore_weights(named, tensors)
    # Adam keeps its step count on the CPU, but for its fused kernels.
    fused = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    for weight in named.values():
        optimizer.state[weight] = {}
    for full_name, tensor in tensors.items():
        if full_name.startswith(MOMENT):
            key, _, name = full_name.removeprefix(MOMENT).partition(".")
            device = "cpu" if key == "step" and not fused else named[name].device
            optimizer.state[named[name]][key] = tensor.to(device).clone()
    set_rng_state(tensors, state["random"])


def restore_weights(named: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Put the weights back, and nothing else; the RunError of `restore`."""
    saved = {name.removeprefix(WEIGHT): tensor for name, tensor in tensors.items() if name.startswith(WEIGHT)}
    _check_same(named, saved)
    with torch.no_grad():
        for name, weight in named.items():
            weight.copy_(saved[name])


def _check_same(named: Mapping[str, nn.Parameter], saved: Mapping[str, Tensor]) -> None:
    wrong = sorted(named.keys() ^ saved.keys()) or [n for n, w in named.items() if w.shape != saved[n].shape]
    if wrong:
        fault = f"the checkpoint does not fit the model ({wrong[0]})"
        raise RunError(
            Problem("checkpoints", fault, "the base or the adapter has changed: start again with --fresh")
        )
