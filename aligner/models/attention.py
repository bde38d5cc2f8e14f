"""Which attention kernel, decided once, here, by measurement; and whether rows can share a line under it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from aligner.errors import ModelError, Problem
from aligner.models.wrapped import device_of, eval_mode, only_rows, output_head, text_config, unwrapped

SHORT_CONTEXT = 512  # tokens
PROBED = 32  # tokens whose logits are compared
PROBE_IDS = 256  # ordinary tokens of any vocabulary
NOISE = 0.05  # of what a leak changes: rounding may do that much in 4 and 8 bit, and does 1e-5 in float32


def choose_attention(model: PreTrainedModel) -> None:
    """SDPA, but plain matrix products for short contexts on a CPU.

    torch's fused CPU kernel is slow on small heads: a Llama of 0.9 M parameters (4 heads of 32, rows of 128 tokens,
    bf16 autocast, 2 threads) trained at 16 k tokens a second with it and at 30 k without; the numbers are the same.
    """
    context = getattr(text_config(model), "max_position_embeddings", None)
    short = context is not None and context <= SHORT_CONTEXT
    model.set_attn_implementation("eager" if short and device_of(model).type == "cpu" else "sdpa")


@torch.no_grad()
def check_isolation(model: nn.Module, length: int) -> None:
    """ModelError unless rows that share a line of `length` tokens, each with positions from 0, are blind to each other.

    Asked of the model itself: a row behind another one must get the logits that it gets alone, or nearly, beside
    what it gets where the positions run on. transformers tells rows apart by their positions in models that use its
    masks; those that carry a state along the line (Mamba), or make masks of their own (Bloom), see across.
    """
    generator, config = torch.Generator().manual_seed(0), text_config(model)
    length = min(length, getattr(config, "max_position_embeddings", None) or length)
    line = torch.randint(min(PROBE_IDS, config.vocab_size), (1, length), generator=generator).to(
        device_of(model)
    )
    row, places = line[:, length // 2 :], torch.arange(length, device=line.device)[None]
    anew = torch.where(places < length // 2, places, places - length // 2)
    with eval_mode(model):
        alone, apart, mixed = (
            _last_logits(model, ids, positions, min(PROBED, row.shape[1]))
            for ids, positions in ((row, places[:, : row.shape[1]]), (line, anew), (line, places))
        )
    if not (apart - alone).abs().max() <= NOISE * (mixed - alone).abs().max():
        what = f"{type(unwrapped(model)).__name__} lets rows that share a line see each other"
        raise ModelError(Problem("train.packing", what, "set packing: false, or take another base model"))


def _last_logits(model: nn.Module, ids_BT: Tensor, places_BT: Tensor, count: int) -> Tensor:
    """The logits of the last `count` tokens."""
    mask_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    mask_BT[:, -count:] = True
    with only_rows(output_head(model), mask_BT):
        logits: Tensor = model(input_ids=ids_BT, position_ids=places_BT, use_cache=False).logits
    return logits.float()
