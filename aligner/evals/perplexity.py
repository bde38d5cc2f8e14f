"""Held-out documents: how many bits a model needs for each byte of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from aligner.data.rows import Document
from aligner.data.tokens import documents_ids
from aligner.errors import DataError, Problem
from aligner.evals.likelihood import token_logprobs


@dataclass(frozen=True)
class BitsPerByte:
    """The mean over bytes, and the sums behind it.

    `bits` = `nats` / ln 2 / `bytes`; `nats` is the sum over the `tokens` that were predicted; `bytes` are the UTF-8
    bytes of the documents' text (of a conversation: of what its turns say, without the template).
    """

    bits: float
    nats: float
    bytes: int
    tokens: int


def bits_per_byte(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Document],
    *,
    block_length: int,
    batch_size: int,
) -> BitsPerByte:
    """Bits per byte over all documents together, each read alone from the beginning-of-text token on.

    A document longer than `block_length` tokens is read in windows that predict `block_length` tokens each; a window
    sees the last token of the one before it and nothing earlier. The end token of a document is not predicted, so
    that tokenizers with and without one compare.
    """
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    texts = [_scored_ids(ids, tokenizer, start) for ids in documents_ids(documents, tokenizer)]
    windows = [window for ids in texts for window in _windows(ids, block_length)]
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else start
    logprobs = token_logprobs(model, windows, batch_size=batch_size, pad_id=pad_id)
    nats = -sum(float(row.double().sum()) for row in logprobs)
    size = sum(_num_bytes(document) for document in documents)
    if size == 0:
        raise DataError(Problem("documents", "there is no text to score", "give documents with text"))
    return BitsPerByte(nats / math.log(2) / size, nats, size, sum(len(row) for row in logprobs))


def _scored_ids(ids: list[int], tokenizer: PreTrainedTokenizerBase, start: int) -> list[int]:
    """Begin token, the document's tokens, no end token."""
    if ids and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    return ids if ids[:1] == [start] else [start, *ids]


def _windows(ids: Sequence[int], block_length: int) -> list[list[int]]:
    """Pieces that overlap by one token, so that every token but the first is predicted exactly once."""
    return [list(ids[at : at + block_length + 1]) for at in range(0, len(ids) - 1, block_length)]


def _num_bytes(document: Document) -> int:
    texts = [turn.content for turn in document.turns] or [document.text]
    return sum(len(text.encode()) for text in texts)
