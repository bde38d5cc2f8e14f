"""Documents: how many bits a model needs for each byte of them, of all together or of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
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
    found = _logprobs(model, tokenizer, documents, block_length=block_length, batch_size=batch_size)
    size = sum(_num_bytes(document) for document in documents)
    if size == 0:
        raise DataError(Problem("documents", "there is no text to score", "give documents with text"))
    return _measured([window for windows in found for window in windows], size)


def bits_of_each(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Document],
    *,
    block_length: int,
    batch_size: int,
) -> list[BitsPerByte]:
    """`bits_per_byte` of every document by itself; none of them may be empty."""
    found = _logprobs(model, tokenizer, documents, block_length=block_length, batch_size=batch_size)
    sizes = [_num_bytes(document) for document in documents]
    return [_measured(windows, size) for windows, size in zip(found, sizes, strict=True)]


def _measured(windows: Sequence[Tensor], size: int) -> BitsPerByte:
    nats = -sum(float(window.double().sum()) for window in windows)
    return BitsPerByte(nats / math.log(2) / size, nats, size, sum(len(window) for window in windows))


def _logprobs(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Document],
    *,
    block_length: int,
    batch_size: int,
) -> list[list[Tensor]]:
    """Log-probabilities of each document's tokens, window by window."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    texts = [_scored_ids(ids, tokenizer, start) for ids in documents_ids(documents, tokenizer)]
    windows = [_windows(ids, block_length) for ids in texts]
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else start
    flat = [window for of_one in windows for window in of_one]
    logprobs = iter(token_logprobs(model, flat, batch_size=batch_size, pad_id=pad_id))
    return [[next(logprobs) for _ in of_one] for of_one in windows]


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
