"""Tiny real models, built in-process: no downloads, milliseconds to make."""

from __future__ import annotations

import functools
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from aligner.models.small import build_small
from aligner.models.tokenizer import train_tokenizer
from aligner.recipe.model import ArchitectureSpec

SENTENCES = (
    "The cat of Mia is red and lives in the old town.",
    "What is the color of the cat? The color of the cat is red.",
    "Who has the ball? Tom has the ball. I do not know where the dog is.",
    "Sorry, I can not help with that. We can talk about something nice.",
    "What is 12 + 34? 12 + 34 = 46. What is 7 + 5? 7 + 5 = 12.",
    "Sort the words: pear, apple, fig. apple, fig, pear.",
    "Is the story happy or sad? The story is happy.",
    "Write the word again: house. house.",
)


def tiny_tokenizer(vocab_size: int = 384) -> PreTrainedTokenizerFast:
    """A fresh byte-level BPE tokenizer of 384 tokens; pad, bos, eos and the chat template as in real runs."""
    return train_tokenizer(SENTENCES * 4, vocab_size=vocab_size)


@functools.cache
def _default_tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def tiny_model(
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    layers: int = 2,
    hidden: int = 32,
    seed: int = 0,
    architecture: Literal["llama", "gpt_neox", "qwen3"] = "llama",
    tie_embeddings: bool = True,
) -> PreTrainedModel:
    """A seeded model in eval mode, context 512; torch's global generator is left as it was."""
    spec = ArchitectureSpec(
        architecture=architecture,
        hidden_size=hidden,
        layers=layers,
        heads=4,
        intermediate_size=2 * hidden,
        context_length=512,
        tie_embeddings=tie_embeddings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_small(spec, tokenizer or _default_tokenizer()).eval()
