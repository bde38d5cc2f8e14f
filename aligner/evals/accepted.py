"""How likely a model is to give an accepted answer: it moves where exact match still stands at 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

import torch
from transformers import PreTrainedTokenizerBase

from aligner.data.rows import Conversation, Prompt, Turn
from aligner.data.tokens import tokenize_conversations
from aligner.evals.gold_rows import gold_of
from aligner.evals.likelihood import answer_logprobs


def accepted_nats(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Prompt],
    *,
    max_length: int,
    batch_size: int,
) -> list[float]:
    """-log p(the answer is, word for word, an accepted one) of each row, in nats; the end of the answer counts too.

    Answers that a judge takes for the same ("Red" for "red.") are not counted in, so it is an upper bound. Prompts are
    rendered as in training, within `max_length` ids. DataError for a row without gold, ValueError for one whose gold
    names no answer.
    """
    answers = [list(dict.fromkeys(gold_of(row).answers)) for row in rows]
    conversations = [
        Conversation(row.origin, (*row.turns, Turn("assistant", answer)))
        for row, accepted in zip(rows, answers, strict=True)
        for answer in accepted
    ]
    rendered = tokenize_conversations(conversations, tokenizer, max_length)
    found = iter(
        answer_logprobs(
            model,
            [row.input_ids for row in rendered],
            [row.supervised.index(True) for row in rendered],
            batch_size=batch_size,
            pad_id=tokenizer.pad_token_id,
        )
    )
    return [-_log_sum([next(found) for _ in accepted]) for accepted in answers]


def by_family(rows: Sequence[Prompt], nats: Sequence[float]) -> dict[str, float]:
    """Mean of each family, in alphabetical order."""
    families = sorted({row.family for row in rows if row.family})
    return {
        family: mean(value for value, row in zip(nats, rows, strict=True) if row.family == family)
        for family in families
    }


def _log_sum(logprobs: Sequence[float]) -> float:
    """log sum exp."""
    most = max(logprobs)
    return most + math.log(sum(math.exp(value - most) for value in logprobs))
