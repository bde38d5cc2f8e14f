"""A checkpoint's weights and moments come back, also where a weight has no moments yet."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aligner.errors import RunError
from aligner.rl.state import restore, training_state


def stepped() -> tuple[dict[str, nn.Parameter], torch.optim.Adam]:
    """Two weights, of which one never had a gradient."""
    named = {"moved": nn.Parameter(torch.ones(3)), "idle": nn.Parameter(torch.ones(2))}
    optimizer = torch.optim.Adam(named.values(), lr=0.1)
    named["moved"].square().sum().backward()
    optimizer.step()
    return named, optimizer


def test_a_weight_without_moments_is_restored_without_them():
    named, optimizer = stepped()
    saved = {name: tensor.clone() for name, tensor in training_state(named, optimizer)[0].items()}
    state = training_state(named, optimizer)[1]
    optimizer.step()
    restore(named, optimizer, saved, state)
    assert torch.equal(named["moved"], saved["weight.moved"])
    assert optimizer.state[named["moved"]]["step"] == 1
    assert not optimizer.state[named["idle"]]
    named["idle"].sum().backward()
    optimizer.step()


def test_another_model_is_refused():
    named, optimizer = stepped()
    tensors, state = training_state(named, optimizer)
    with pytest.raises(RunError, match="does not fit the model"):
        restore({"moved": named["moved"]}, optimizer, tensors, state)
