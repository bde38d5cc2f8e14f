"""Answers that one model gave, as another model with a tokenizer of its own reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aligner.data.rows import Prompt, Turn
from aligner.data.templates import control_tokens, encode_conversations, render_texts, unforged
from aligner.data.tokens import fit_prompt, prompt_room

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class AnswerRow:
    """A prompt of `prompt_length` ids and the answer to it."""

    input_ids: list[int]
    prompt_length: int


def tokenize_answers(
    prompts: Sequence[Prompt],
    texts: Sequence[str],
    finished: Sequence[bool],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
) -> list[AnswerRow]:
    """Each prompt and its answer through the tokenizer's own chat template, at most `max_length` ids, as pairs are.

    `texts` come without an end token. A finished answer gets the template's; one that was cut gets none. What spells a
    control token of this tokenizer is broken up by a space: nobody ends a turn, or begins one, by writing so.
    """
    encoded = encode_conversations(
        [
            (*_words(prompt.turns, tokenizer), *_words([Turn("assistant", text)], tokenizer))
            for prompt, text in zip(prompts, texts, strict=True)
        ],
        tokenizer,
        origins=[prompt.origin for prompt in prompts],
        last_only=True,
    )
    rows = []
    for prompt, row, done in zip(prompts, encoded, finished, strict=True):
        start = row.spans[-1].start
        asked, answer = row.ids[:start], row.ids[start:] if done else row.ids[start:-1]
        if len(asked) + len(answer) > max_length:
            asked = fit_prompt(prompt.turns, asked, prompt_room(start, len(answer), max_length), tokenizer)
        rows.append(AnswerRow((asked + answer)[:max_length], len(asked)))
    return rows


def check_prompts(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase) -> None:
    """DataError for the first prompt that the tokenizer's chat template refuses."""
    turns = [_words(prompt.turns, tokenizer) for prompt in prompts]
    render_texts(turns, tokenizer, ask=True, origins=[prompt.origin for prompt in prompts])


def _words(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> tuple[Turn, ...]:
    controls = control_tokens(tokenizer)
    return tuple(replace(turn, content=unforged(turn.content, controls)) for turn in turns)
