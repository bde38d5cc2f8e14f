"""Reading prompts, and then token by token, with a key/value cache that has room for what is still to be sampled.

transformers' own cache grows by concatenation: each token copies all of it. B = rows, T = tokens,
V = vocabulary, D = hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from aligner.models.padding import left_padded
from aligner.models.wrapped import device_of, output_head, text_config


class Last(NamedTuple):
    """What comes of reading: logits of the token to come, and the hidden state that they are from."""

    logits_BV: Tensor
    hidden_BD: Tensor

    def select(self, rows: Tensor) -> Last:
        """These rows, each as often as it is named."""
        return Last(self.logits_BV[rows], self.hidden_BD[rows])


def read_prompts(
    model: nn.Module, prompts: Sequence[Sequence[int]], *, pad_id: int, room: int
) -> tuple[Last, Tensor, Tensor, DynamicCache]:
    """What each row's first token is drawn from, mask, last positions, and a cache with `room` tokens to spare.

    A prompt that several rows have is read once.
    """
    device = device_of(model)
    distinct = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
    ids_BT, mask_BT = left_padded(distinct, pad_id=pad_id, device=device)
    positions_BT = (mask_BT.long().cumsum(dim=1) - 1).clamp(min=0)
    cache = roomy_cache(text_config(model), ids_BT.shape[1] + room)
    last = read_tokens(model, ids_BT, mask_BT, positions_BT, cache)
    if len(distinct) < len(prompts):
        number = {prompt: i for i, prompt in enumerate(distinct)}
        rows_B = torch.tensor([number[tuple(prompt)] for prompt in prompts], device=device)
        cache.batch_select_indices(rows_B)
        last, mask_BT, positions_BT = last.select(rows_B), mask_BT[rows_B], positions_BT[rows_B]
    return last, mask_BT, positions_BT[:, -1:], cache


def read_tokens(
    model: nn.Module, ids_BT: Tensor, mask_BT: Tensor, positions_BT: Tensor, cache: DynamicCache
) -> Last:
    """The given tokens are read, and the cache grows by them."""
    seen: list[Tensor] = []
    handle = output_head(model).register_forward_pre_hook(lambda _head, given: seen.append(given[0][:, -1]))
    try:
        output = model(
            input_ids=ids_BT,
            attention_mask=mask_BT.long(),
            position_ids=positions_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    finally:
        handle.remove()
    return Last(output.logits[:, -1], seen[0])


def roomy_cache(config: PreTrainedConfig, room: int) -> DynamicCache:
    """An empty cache whose plain layers make room for `room` tokens at once; sliding and other layers are as ever."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class RoomyLayer(DynamicLayer):
    """Keys and values (rows, heads, tokens, size) are the filled part of a larger block."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.blocks: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new tokens behind those that are there; all of them, with these."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        filled = self.get_seq_length()
        width = filled + key_states.shape[-2]
        if not self.blocks or width > self.blocks[0].shape[-2]:
            self._move(max(width, self.room), key_states, value_states)
        for block, new in zip(self.blocks, (key_states, value_states), strict=True):
            block[:, :, filled:width] = new
        self.keys, self.values = (block[:, :, :width] for block in self.blocks)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, each as often as it is named."""
        filled = self.get_seq_length()
        if filled:
            self.blocks = [_rows_of(block, indices, filled) for block in self.blocks]
            self.keys, self.values = (block[:, :, :filled] for block in self.blocks)

    def _move(self, room: int, key_states: Tensor, value_states: Tensor) -> None:
        """To blocks with more room."""
        old, filled = self.blocks, self.get_seq_length()
        self.blocks = [
            new.new_empty(*new.shape[:2], room, new.shape[3]) for new in (key_states, value_states)
        ]
        for block, before in zip(self.blocks, old, strict=False):
            block[:, :, :filled] = before[:, :, :filled]


def _rows_of(block: Tensor, indices: Tensor, filled: int) -> Tensor:
    """A block of these rows, as roomy; only what is filled is copied."""
    chosen = block.new_empty(len(indices), *block.shape[1:])
    chosen[:, :, :filled] = block[indices, :, :filled]
    return chosen
