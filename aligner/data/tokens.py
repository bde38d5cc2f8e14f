"""Rows as ids: what a model learns from, compares, or answers; and how long rows are made to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aligner.data.ids import encode_texts, one_bos
from aligner.data.rows import Conversation, Document, Pair, Prompt, Turn
from aligner.data.templates import (
    Encoded,
    Turns,
    control_tokens,
    encode_conversations,
    encode_prompts,
    render_texts,
    unforged,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenRow:
    """A conversation to learn: `supervised` is true for the tokens of the answers and their end tokens.

    `prompt_cut`: something was cut from the left to fit. `answer_cut`: the answer lost its end. `rewritten`: earlier
    answers are not learnt, since the template shows them otherwise than they are given (see `encode_conversations`).
    `template`, `shots`: as of the `Conversation`.
    """

    input_ids: list[int]
    supervised: list[bool]
    family: str = ""
    prompt_cut: bool = False
    answer_cut: bool = False
    rewritten: bool = False
    template: str = ""
    shots: int = 0

    @property
    def labels(self) -> list[int]:
        """The ids, -100 where the token is not supervised."""
        return [
            token if counts else -100 for token, counts in zip(self.input_ids, self.supervised, strict=True)
        ]


@dataclass(frozen=True)
class PairRow:
    """Two rendered answers to one prompt; both share the first `prompt_length` ids. `weight`: of its loss."""

    chosen_ids: list[int]
    rejected_ids: list[int]
    margin: float | None
    kind: str
    prompt_length: int
    prompt_cut: bool = False
    answer_cut: bool = False
    weight: float = 1.0


@dataclass(frozen=True)
class PromptRow:
    """A prompt rendered with the generation prompt, ready to be answered."""

    input_ids: list[int]
    prompt: Prompt
    prompt_cut: bool = False


def render_prompt(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of a conversation with the generation prompt after it."""
    return encode_prompts([tuple(turns)], tokenizer, origins=[None])[0]


def tokenize_conversation(
    turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> TokenRow:
    """One conversation that ends with an assistant turn, at most `max_length` ids (see the plural)."""
    encoded = encode_conversations([tuple(turns)], tokenizer, origins=[None])[0]
    return _token_row(tuple(turns), encoded, "", tokenizer, max_length)


def tokenize_conversations(
    rows: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[TokenRow]:
    """Conversations as ids, every assistant turn and its end token supervised, nothing else.

    Too long ones lose their first exchanges (the system turn stays); a single exchange that is still too long
    loses the beginning of its prompt behind the template's prefix; an answer is cut only where three quarters
    of `max_length` do not hold it.
    """
    all_encoded = encode_conversations(
        [row.turns for row in rows], tokenizer, origins=[row.origin for row in rows]
    )
    made = [
        _token_row(row.turns, encoded, row.family, tokenizer, max_length)
        for row, encoded in zip(rows, all_encoded, strict=True)
    ]
    return [
        replace(token_row, template=row.template, shots=row.shots) if row.template else token_row
        for row, token_row in zip(rows, made, strict=True)
    ]


def _token_row(
    turns: Turns, encoded: Encoded, family: str, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> TokenRow:
    dropped = False
    while len(encoded.ids) > max_length and (shorter := _without_first_exchange(turns)):
        turns, dropped = shorter, True
        encoded = encode_conversations([turns], tokenizer, origins=[None])[0]
    supervised = [False] * len(encoded.ids)
    for start, end in encoded.spans:
        supervised[start:end] = [True] * (end - start)
    if len(encoded.ids) <= max_length:
        return TokenRow(encoded.ids, supervised, family, dropped, rewritten=encoded.rewritten)
    start = encoded.spans[-1].start
    answer = encoded.ids[start:]
    prompt = fit_prompt(
        turns[:-1], encoded.ids[:start], prompt_room(start, len(answer), max_length), tokenizer
    )
    ids = (prompt + answer)[:max_length]
    supervised = [index >= len(prompt) for index in range(len(ids))]
    cut = len(ids) < len(prompt) + len(answer)
    return TokenRow(ids, supervised, family, prompt_cut=dropped or len(prompt) < start, answer_cut=cut)


def tokenize_pairs(
    rows: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[PairRow]:
    """Both answers of each pair after the same prompt ids, end tokens included.

    A prompt that is too long for the longer answer is cut from the left, for both alike (rule of
    `tokenize_conversations`).
    """
    origins = [row.origin for row in rows for _ in range(2)]
    sides = [
        (*row.prompt, Turn("assistant", answer)) for row in rows for answer in (row.chosen, row.rejected)
    ]
    encoded = encode_conversations(sides, tokenizer, origins=origins, last_only=True)
    return [
        _pair_row(row, chosen, rejected, tokenizer, max_length)
        for row, chosen, rejected in zip(rows, encoded[::2], encoded[1::2], strict=True)
    ]


def _pair_row(
    row: Pair, chosen: Encoded, rejected: Encoded, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> PairRow:
    start = chosen.spans[-1].start
    prompt, answers = chosen.ids[:start], (chosen.ids[start:], rejected.ids[rejected.spans[-1].start :])
    longest = max(map(len, answers))
    kept = prompt
    if start + longest > max_length:
        kept = fit_prompt(row.prompt, prompt, prompt_room(start, longest, max_length), tokenizer)
    return PairRow(
        chosen_ids=(kept + answers[0])[:max_length],
        rejected_ids=(kept + answers[1])[:max_length],
        margin=row.margin,
        kind=row.kind,
        prompt_length=len(kept),
        prompt_cut=len(kept) < start,
        answer_cut=len(kept) + longest > max_length,
        weight=row.weight,
    )


def tokenize_prompts(
    rows: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[PromptRow]:
    """Prompts with the generation prompt; too long ones are cut as in `tokenize_conversations`."""
    prompts = encode_prompts([row.turns for row in rows], tokenizer, origins=[row.origin for row in rows])
    fitted = [
        fit_prompt(row.turns, ids, max_length, tokenizer) for row, ids in zip(rows, prompts, strict=True)
    ]
    return [
        PromptRow(ids, row, prompt_cut=ids is not whole)
        for row, ids, whole in zip(rows, fitted, prompts, strict=True)
    ]


def prompt_room(prompt_length: int, answer_length: int, max_length: int) -> int:
    """Tokens the prompt may keep: what the answer leaves, but a quarter of the row if it needs that."""
    return max(max_length - answer_length, min(prompt_length, max_length // 4), 1)


def fit_prompt(turns: Turns, ids: list[int], room: int, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """A prompt's ids within `room`: first exchanges go, then ids behind the template's prefix."""
    while len(ids) > room and (shorter := _without_first_exchange(turns)):
        turns = shorter
        ids = render_prompt(turns, tokenizer)
    if len(ids) <= room:
        return ids
    begun = ids[0] == tokenizer.bos_token_id and room > 1
    head = max(_prefix_length(turns, ids, room // 2, tokenizer), int(begun))
    return ids[:head] + ids[len(ids) - (room - head) :]


def _without_first_exchange(turns: Turns) -> Turns | None:
    """The turns without the first exchange; None where that would leave nothing to answer.

    An exchange goes to the end of its answer: the tools that were called for it are part of it.
    """
    system = turns[:1] if turns[0].role == "system" else ()
    first = next((index for index, turn in enumerate(turns) if turn.role == "assistant"), len(turns))
    while first < len(turns) and (turns[first].tool_calls or turns[first].role == "tool"):
        first += 1
    rest = turns[first + 1 :]
    return (*system, *rest) if rest else None


def _prefix_length(turns: Turns, ids: list[int], most: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens the template puts before the user's text, else before the first turn's, where they are at most `most`."""
    text = render_texts([turns], tokenizer, ask=True, origins=[None])[0]
    user = next((turn for turn in turns if turn.role == "user"), turns[0])
    for turn in (user, turns[0]):
        prefix = one_bos(encode_texts([text[: max(text.find(turn.content), 0)]], tokenizer)[0], tokenizer)
        if len(prefix) <= most:  # the prefix's last token may be another one where text follows it
            return next(
                (i for i, pair in enumerate(zip(prefix, ids, strict=False)) if len(set(pair)) > 1),
                len(prefix),
            )
    return 0


def document_ids(document: Document, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """One document as ids: beginning token, text, end token (each where the tokenizer has one)."""
    return documents_ids([document], tokenizer)[0]


def documents_ids(documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Documents as ids, in order.

    In plain text, control tokens are spelt out as text. Conversations go through the chat template, and
    control tokens in their contents are broken up by a space ("< |eos|>"), so no text can forge one.
    """
    plain = [document.text for document in documents if not document.turns]
    chats = [document for document in documents if document.turns]
    controls = control_tokens(tokenizer)
    turns = [tuple(Turn(t.role, unforged(t.content, controls)) for t in document.turns) for document in chats]
    rendered = render_texts(turns, tokenizer, ask=False, origins=[document.origin for document in chats])
    if eos := tokenizer.eos_token:
        rendered = [text.rstrip().removesuffix(eos) for text in rendered]  # the one that `_ended` adds
    plain_ids = iter(encode_texts(plain, tokenizer, plain=True))
    chat_ids = iter(encode_texts(rendered, tokenizer))
    return [_ended(next(chat_ids if document.turns else plain_ids), tokenizer) for document in documents]


def tokenize_documents(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[list[TokenRow]]:
    """Documents to be learnt whole: every token is supervised but the first, which nothing comes before.

    One that is too long becomes several rows of `max_length` ids and a shorter one. Each begins with the last id of
    the one before, so every id but the document's first is learnt once.
    """
    return [
        [
            _document_row(ids[start : start + max_length])
            for start in range(0, max(len(ids) - 1, 1), max_length - 1)
        ]
        for ids in documents_ids(documents, tokenizer)
    ]


def _document_row(ids: list[int]) -> TokenRow:
    return TokenRow(ids, [index > 0 for index in range(len(ids))], "document")


def _ended(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    eos = tokenizer.eos_token_id
    return one_bos(ids, tokenizer) + ([] if eos is None else [eos])
