"""Conversations as text and ids: the tokenizer's chat template, control tokens, and where the answers lie."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, cast

from jinja2 import TemplateError

from aligner.data.ids import encode_texts, ids_inside, one_bos
from aligner.data.messages import as_messages, tools_of
from aligner.data.prefixes import PrefixedIds, encode_prefixed
from aligner.data.rows import Origin, ToolCall, Turn
from aligner.errors import DataError, Problem
from aligner.sandbox.chat import render_messages
from aligner.sandbox.meter import OverspentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turns = tuple[Turn, ...]
BATCH = (
    512  # conversations encoded at once: what a tokenizer tells of each takes ten times the memory of its ids
)
THREADS = 2  # one renders while the other tokenises, which needs no interpreter


class Span(NamedTuple):
    """Positions of one answer in the ids: its first token, and past its end token."""

    start: int
    end: int


@dataclass(frozen=True)
class Encoded:
    """A rendered conversation: ids up to the last answer's end token, and where the answers are.

    `rewritten`: there are earlier answers without a span, since the template shows them otherwise than they are given.
    """

    ids: list[int]
    spans: list[Span]
    rewritten: bool = False


class _Answer(NamedTuple):
    """One assistant turn in the text: what is given before it, where it ends, the token that ends it."""

    prompt: str
    end: int
    end_token: str


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The strings that become control ids; the unknown token controls nothing and is left out."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    special |= set(tokenizer.all_special_tokens)
    steering = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
    return tuple(sorted(token for token in special if token != tokenizer.unk_token or token in steering))


def unforged(content: str, controls: tuple[str, ...]) -> str:
    """The content with its control tokens broken up by a space ("< |eos|>"), so that they are words."""
    for token in controls:
        content = content.replace(token, f"{token[0]} {token[1:]}")
    return content


def render_texts(
    conversations: Sequence[Turns],
    tokenizer: PreTrainedTokenizerBase,
    *,
    ask: bool,
    origins: Sequence[Origin | None],
) -> list[str]:
    """Each conversation through the chat template; `ask` adds the generation prompt.

    Raises `DataError` where the tokenizer has no template or the template refuses a conversation.
    """
    if not conversations:
        return []
    if not tokenizer.chat_template:
        what = "the tokenizer has no chat template"
        raise DataError(Problem("", what, "name a chat model, or save a template with the tokenizer"))
    if len(conversations) > 1 and any(turn.tools for turns in conversations for turn in turns[:1]):
        return _one_by_one(conversations, tokenizer, ask, origins)  # each has its own tools
    messages = [as_messages(turns) for turns in conversations]
    tools = tools_of(conversations[0])
    try:
        return render_messages(messages, tokenizer, tools=tools, ask=ask)
    except (TemplateError, OverspentError) as error:
        if len(conversations) > 1:  # once more, to name the row
            return _one_by_one(conversations, tokenizer, ask, origins)
        what, remedy = (
            f"the chat template refuses this row ({error})",
            "mend its roles and their order, or delete it",
        )
        raise DataError(Problem(str(origins[0] or ""), what, remedy)) from error


def _one_by_one(
    conversations: Sequence[Turns],
    tokenizer: PreTrainedTokenizerBase,
    ask: bool,
    origins: Sequence[Origin | None],
) -> list[str]:
    pairs = zip(conversations, origins, strict=True)
    return [render_texts([turns], tokenizer, ask=ask, origins=[origin])[0] for turns, origin in pairs]


def renders_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template writes tools, calls and results; one that does not would leave them out unsaid.

    Name and arguments of a call must be among what is learnt, too: half of a call would teach a model half calls.
    """
    parameters = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}
    tool = {"type": "function", "function": {"name": "given1", "description": "d", "parameters": parameters}}
    turns = (
        Turn("system", "", tools=json.dumps([tool])),
        Turn("user", "asked"),
        Turn("assistant", "", (ToolCall("called2", '{"key": "value3"}'),)),
        Turn("tool", "result4"),
        Turn("assistant", "said"),
    )
    try:
        (text,) = render_texts([turns], tokenizer, ask=False, origins=[None])
        asked, whole = encode_conversations([turns[:3], turns], tokenizer, origins=[None, None])
    except (DataError, TypeError):  # the second where a template takes arguments as text alone (DeepSeek-V3)
        return False
    # an earlier call that is not learnt (`rewritten`) is context
    learnt = [asked] if whole.rewritten else [asked, whole]
    calls = [tokenizer.decode(row.ids[slice(*row.spans[0])]) for row in learnt]
    return all(word in text for word in ("given1", "called2", "value3", "result4")) and all(
        word in call for word in ("called2", "value3") for call in calls
    )


def encode_prompts(
    conversations: Sequence[Turns], tokenizer: PreTrainedTokenizerBase, *, origins: Sequence[Origin | None]
) -> list[list[int]]:
    """Ids of each conversation with the generation prompt after it: what a model is given to answer."""
    texts = render_texts(conversations, tokenizer, ask=True, origins=origins)
    return [one_bos(ids, tokenizer) for ids in encode_texts(texts, tokenizer)]


def encode_conversations(
    conversations: Sequence[Turns],
    tokenizer: PreTrainedTokenizerBase,
    *,
    origins: Sequence[Origin | None],
    last_only: bool = False,
) -> list[Encoded]:
    """Ids of each conversation and the spans of its assistant turns (with `last_only`, of the last one).

    Every conversation ends with an assistant turn. A span starts where the prompt's own ids end, so training sees
    the border that sampling will see, and ends after the end token; template text behind it is no answer.

    Templates of models that think (Qwen3's) write a thinking block, empty or not, before the last answer only. So an
    earlier answer is learnt as the whole conversation shows it, where all that its turn says stands there right after
    the generation prompt; else (its thinking is gone) it has no span, and the row is `rewritten`.
    Raises `DataError` where the template renders an answer, as the last one, elsewhere than after its generation
    prompt, or without an end token.
    """

    def encode(start: int) -> list[Encoded]:
        part = slice(start, start + BATCH)
        return _encoded_part(conversations[part], tokenizer, origins[part], last_only)

    with ThreadPoolExecutor(THREADS) as threads:
        encoded = threads.map(encode, range(0, len(conversations), BATCH))
        return [row for part in encoded for row in part]


def _encoded_part(
    conversations: Sequence[Turns],
    tokenizer: PreTrainedTokenizerBase,
    origins: Sequence[Origin | None],
    last_only: bool,
) -> list[Encoded]:
    places = [_answer_places(turns, last_only) for turns in conversations]
    owners = [row for row, found in enumerate(places) for _ in found]
    cuts = [(row, place) for row, found in enumerate(places) for place in found]
    where = [origins[row] for row in owners]
    asked = render_texts([conversations[r][:p] for r, p in cuts], tokenizer, ask=True, origins=where)
    upto = render_texts([conversations[r][: p + 1] for r, p in cuts], tokenizer, ask=False, origins=where)
    full = dict(zip(owners, upto, strict=True))  # a row's last text stays: the whole conversation
    answers: dict[int, list[_Answer]] = {row: [] for row in range(len(conversations))}
    controls, eos = control_tokens(tokenizer), tokenizer.eos_token
    for (row, place), prompt, text in zip(cuts, asked, upto, strict=True):
        given = _find_answer(prompt, text, eos, controls, origins[row])
        if full[row].startswith(text) or _still_there(given, text, full[row], conversations[row][place]):
            if not full[row].startswith(text):
                end = full[row].index(given.end_token, len(prompt)) + len(given.end_token)
                given = given._replace(end=end)
            answers[row].append(given)
    ends = {answer.end_token for found in answers.values() for answer in found}
    end_ids = {token: cast(int, tokenizer.convert_tokens_to_ids(token)) for token in ends}
    whole = [full[row] for row in range(len(full))]
    prompts = [[answer.prompt for answer in answers[row]] for row in range(len(full))]
    encoded = [
        _encoded(prefixed, answers[row], full[row], end_ids, tokenizer)
        for row, prefixed in enumerate(encode_prefixed(whole, prompts, tokenizer))
    ]
    return [
        replace(row, rewritten=True) if len(row.spans) < len(found) else row
        for row, found in zip(encoded, places, strict=True)
    ]


def _answer_places(turns: Turns, last_only: bool) -> list[int]:
    places = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    if not turns or turns[-1].role != "assistant":
        raise ValueError("a conversation to learn from ends with an assistant turn")
    return places[-1:] if last_only else places


def _find_answer(
    prompt: str, upto: str, eos: str | None, controls: tuple[str, ...], origin: Origin | None
) -> _Answer:
    if not upto.startswith(prompt):
        what = "the chat template renders the answer elsewhere than right after its generation prompt"
        remedy = "use a template that goes on from its generation prompt with the answer"
        raise DataError(Problem(str(origin or ""), what, remedy))
    place, token = _end_of(upto[len(prompt) :], eos, controls)
    if not token:
        what, remedy = (
            "the chat template puts no end token after an answer",
            "let it end every answer with eos_token",
        )
        raise DataError(Problem(str(origin or ""), what, remedy))
    return _Answer(prompt, len(prompt) + place + len(token), token)


def _end_of(answer: str, eos: str | None, controls: tuple[str, ...]) -> tuple[int, str]:
    """Where the token stands that ends an answer, and which it is; "" where there is none.

    It is the first eos. In an answer without eos it is the control token that it ends with, since others may part it
    (gpt-oss calls: " to=add<|channel|>commentary json<|message|>{...}<|call|>"), else the first one.
    """
    if eos and eos in answer:
        return answer.find(eos), eos
    said = answer.rstrip()
    last = max((token for token in controls if said.endswith(token)), key=len, default="")
    if last:
        return len(said) - len(last), last
    return min(((answer.find(token), token) for token in controls if token in answer), default=(0, ""))


def _still_there(answer: _Answer, upto: str, full: str, turn: Turn) -> bool:
    """Whether the whole conversation has all that a turn says, if not the template's own words before it."""
    start, place = len(answer.prompt), full.find(answer.end_token, len(answer.prompt))
    if place < 0 or not full.startswith(answer.prompt):
        return False
    shown = full[start : place + len(answer.end_token)]
    said = (turn.content, *(call.name for call in turn.tool_calls))
    return upto[start : answer.end].endswith(shown) and all(text in shown for text in said)


def _encoded(
    prefixed: PrefixedIds,
    answers: list[_Answer],
    text: str,
    end_ids: dict[str, int],
    tokenizer: PreTrainedTokenizerBase,
) -> Encoded:
    ids, spans = prefixed.ids, []
    for length, answer in zip(prefixed.lengths, answers, strict=True):
        if length is None:
            return _encoded_in_pieces(answers, text, tokenizer)
        end_id, end = end_ids[answer.end_token], length
        for _ in range(text.count(answer.end_token, len(answer.prompt), answer.end)):
            end = ids.index(end_id, end) + 1
        spans.append(Span(length, end))
    return Encoded(ids[: spans[-1].end], spans)


def _encoded_in_pieces(answers: list[_Answer], text: str, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Each prompt part and answer tokenised for itself, where one token would lie across their border."""
    borders = [0, *(border for answer in answers for border in (len(answer.prompt), answer.end))]
    first, *later = [text[start:end] for start, end in pairwise(borders)]
    ids = one_bos(encode_texts([first], tokenizer)[0], tokenizer)
    spans: list[Span] = []
    for index, piece in enumerate(later):
        start, ids = len(ids), ids + ids_inside(piece, tokenizer)
        if index % 2 == 0:
            spans.append(Span(start, len(ids)))
    return Encoded(ids, spans)
