"""Which attention kernel: decided once, here, by measurement."""

from __future__ import annotations

from transformers import PreTrainedModel

from aligner.models.wrapped import device_of, text_config

SHORT_CONTEXT = 512  # tokens


def choose_attention(model: PreTrainedModel) -> None:
    """SDPA, but plain matrix products for short contexts on a CPU.

    torch's fused CPU kernel is slow on small heads: a Llama of 0.9 M parameters (4 heads of 32, rows of 128 tokens,
    bf16 autocast, 2 threads) trained at 16 k tokens a second with it and at 30 k without; the numbers are the same.
    """
    context = getattr(text_config(model), "max_position_embeddings", None)
    short = context is not None and context <= SHORT_CONTEXT
    model.set_attn_implementation("eager" if short and device_of(model).type == "cpu" else "sdpa")
