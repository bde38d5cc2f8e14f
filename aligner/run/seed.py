"""Every random number generator a stage may draw from: seeded, saved, restored."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class RngState(NamedTuple):
    """All generators at one moment: `tensors` for safetensors (torch's), `state` for JSON (Python's and NumPy's)."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (every device) with the same number."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)  # NumPy takes 32 bits only
    torch.manual_seed(seed)


def rng_state() -> RngState:
    """The state of all global generators, as values that need no pickle."""
    import numpy
    import torch

    version, words, gauss = random.getstate()
    # legacy=False gives a plain mapping; it exists for the global generator since NumPy 1.17
    of_numpy: Any = numpy.random.get_state(legacy=False)
    key = of_numpy["state"]
    state = {
        "python": {"version": version, "words": list(words), "gauss": gauss},
        "numpy": {
            "key": [int(word) for word in key["key"]],
            "pos": int(key["pos"]),
            "has_gauss": int(of_numpy["has_gauss"]),
            "gauss": float(of_numpy["gauss"]),
        },
    }
    tensors = {"rng.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"rng.cuda.{i}": value for i, value in enumerate(torch.cuda.get_rng_state_all())}
    return RngState(tensors, state)


def set_rng_state(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Put all generators back; `tensors` may hold other names too, and lack those of devices that were not there."""
    import numpy
    import torch

    of_python, of_numpy = state["python"], state["numpy"]
    random.setstate((of_python["version"], tuple(of_python["words"]), of_python["gauss"]))
    key = numpy.array(of_numpy["key"], dtype=numpy.uint32)
    numpy.random.set_state(("MT19937", key, of_numpy["pos"], of_numpy["has_gauss"], of_numpy["gauss"]))
    torch.set_rng_state(tensors["rng.torch"])
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            saved = tensors.get(f"rng.cuda.{device}", tensors.get("rng.cuda.0"))
            if saved is not None:  # of a machine with fewer devices, or none
                torch.cuda.set_rng_state(saved, device)
