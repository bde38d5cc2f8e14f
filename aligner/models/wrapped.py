"""Looking through wrappers: PEFT and data-parallel models answer like the transformers model inside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from aligner.errors import ModelError, Problem


def unwrapped(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside PEFT and data-parallel wrappers (adapters stay in its layers)."""
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    return inner if isinstance(inner, PreTrainedModel) else inner.get_base_model()


def output_head(model: nn.Module) -> nn.Module:
    """The layer that turns hidden states into logits."""
    head = unwrapped(model).get_output_embeddings()
    if head is None:
        raise ModelError(
            Problem(
                type(unwrapped(model)).__name__, "has no language-model head", "use a causal language model"
            )
        )
    return head


def text_config(model: nn.Module) -> PreTrainedConfig:
    """The settings of the text decoder (of the whole model, where it reads nothing else)."""
    return unwrapped(model).config.get_text_config(decoder=True)


def context_length(model: nn.Module) -> int:
    """The longest sequence the model reads, in tokens; 2048 where its settings name none."""
    return context_of(unwrapped(model).config)


def context_of(config: PreTrainedConfig) -> int:
    """`context_length` of a model with these settings."""
    own = config.get_text_config(decoder=True)
    return int(getattr(own, "max_position_embeddings", None) or 2048)


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter lies."""
    return next(model.parameters()).device


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off; every module's own mode comes back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def only_rows(head: nn.Module, mask_BT: Tensor) -> Iterator[None]:
    """Inside, `head` sees only the hidden states where `mask_BT` is set: (B, T, D) becomes (N, D).

    The output layer is most of the work of a small model, and for an answer of 10 tokens to a prompt of 90 nine
    tenths of it would be thrown away. A hook works for every architecture, under PEFT, quantisation and DDP, on CPU
    and GPU.
    """
    handle = head.register_forward_pre_hook(lambda _module, args: (args[0][mask_BT], *args[1:]))
    try:
        yield
    finally:
        handle.remove()
