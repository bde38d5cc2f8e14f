"""Small decoder-only models with fresh weights, from transformers' own config classes."""

from __future__ import annotations

import math

import torch
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
)

from aligner.errors import ModelError, Problem
from aligner.models.attention import choose_attention
from aligner.recipe.model import ArchitectureSpec


def build_small(spec: ArchitectureSpec, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A model of the given shape over the tokenizer's vocabulary; weights from torch's global generator, fp32."""
    config = _CONFIGS[spec.architecture](spec, len(tokenizer))
    config.pad_token_id = tokenizer.pad_token_id
    config.bos_token_id = tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    choose_attention(model)
    return model


_ANY_VOCABULARY = 512  # holds the control tokens that config classes name by default; they warn of fewer


def small_shape(spec: ArchitectureSpec) -> PreTrainedModel:
    """The same model without weights, before any data: what its modules are called."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(_CONFIGS[spec.architecture](spec, _ANY_VOCABULARY))


def _init_std(spec: ArchitectureSpec) -> float:
    """sqrt(2 / (5 d)): "small init" (Nguyen & Salazar 2019, arXiv:1910.05895), as GPT-NeoX-20B used it.

    The usual 0.02 fits widths near 1000; at 128 it starts attention and logits almost flat.
    """
    return math.sqrt(2 / (5 * spec.hidden_size))


def _llama(spec: ArchitectureSpec, vocab_size: int) -> PreTrainedConfig:
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=spec.hidden_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads or spec.heads,
        intermediate_size=spec.intermediate_size,
        max_position_embeddings=spec.context_length,
        tie_word_embeddings=spec.tie_embeddings,
        initializer_range=_init_std(spec),
    )


def _qwen3(spec: ArchitectureSpec, vocab_size: int) -> PreTrainedConfig:
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=spec.hidden_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads or spec.heads,
        head_dim=spec.hidden_size // spec.heads,  # Qwen3 does not derive it; its default is 128
        intermediate_size=spec.intermediate_size,
        max_position_embeddings=spec.context_length,
        tie_word_embeddings=spec.tie_embeddings,
        initializer_range=_init_std(spec),
    )


def _gpt_neox(spec: ArchitectureSpec, vocab_size: int) -> PreTrainedConfig:
    if spec.kv_heads not in (None, spec.heads):
        raise ModelError(
            Problem(
                "model.kv_heads",
                "gpt_neox has no grouped key/value heads",
                "leave kv_heads out, or use llama or qwen3",
            )
        )
    return GPTNeoXConfig(
        vocab_size=vocab_size,
        hidden_size=spec.hidden_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=spec.intermediate_size,
        max_position_embeddings=spec.context_length,
        tie_word_embeddings=spec.tie_embeddings,
        initializer_range=_init_std(spec),
    )


_CONFIGS = {"llama": _llama, "gpt_neox": _gpt_neox, "qwen3": _qwen3}
