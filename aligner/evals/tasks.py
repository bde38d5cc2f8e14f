"""Exact match by task family, and the few-shot prompts that give a base model its best chance."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from aligner.data.ids import encode_texts, one_bos
from aligner.data.rows import Prompt, Turn
from aligner.data.tokens import render_prompt
from aligner.evals.gold import exact_match
from aligner.evals.gold_rows import gold_of

Style = Literal["page", "chat"]
STYLES: tuple[Style, ...] = ("page", "chat")


@dataclass(frozen=True)
class TaskScores:
    """Share of exact matches over all rows (0..1), by family, and the number of rows."""

    share: float
    families: dict[str, float]
    rows: int


def score_tasks(rows: Sequence[Prompt], responses: Sequence[str]) -> TaskScores:
    """Exact match of one response a row; families in alphabetical order."""
    hits = [exact_match(response, gold_of(row)) for row, response in zip(rows, responses, strict=True)]
    families = {
        family: _mean([hit for hit, row in zip(hits, rows, strict=True) if row.family == family])
        for family in sorted({row.family for row in rows if row.family})
    }
    return TaskScores(_mean(hits), families, len(hits))


def few_shot_prompts(
    rows: Sequence[Prompt],
    solved: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    *,
    shots: int,
    style: Style,
    max_tokens: int,
    seed: int,
) -> list[list[int]]:
    """Token ids of each row's question behind `shots` solved examples of its family (of any, if it has none).

    page: "Q: ...\\nA: ...\\n" lines, as in plain text; chat: examples as earlier turns. Examples are dropped, first
    ones first, until the prompt has at most `max_tokens`; a question that is too long alone is cut from the left.
    """
    by_family: dict[str, list[Prompt]] = {}
    for example in solved:
        by_family.setdefault(example.family, []).append(example)
    prompts = []
    for number, row in enumerate(rows):
        pool = by_family.get(row.family) or list(solved)
        drawn = random.Random(f"{seed}/{number}").sample(pool, min(shots, len(pool)))
        prompts.append(_fitting(row, drawn, tokenizer, style, max_tokens))
    return prompts


def first_line(text: str) -> str:
    """What a page answered before it went on to its next question."""
    return text.strip().split("\n", 1)[0].strip()


def line_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ends a line, if one token does."""
    ids = tokenizer.encode("\n", add_special_tokens=False)
    return ids[0] if len(ids) == 1 else None


def _fitting(
    row: Prompt, examples: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, style: Style, max_tokens: int
) -> list[int]:
    render = _page if style == "page" else _chat
    ids = render(row, examples, tokenizer)
    while len(ids) > max_tokens and examples:
        examples = examples[1:]
        ids = render(row, examples, tokenizer)
    return ids[-max_tokens:]


def _page(row: Prompt, examples: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    solved = "".join(f"Q: {_question(example)}\nA: {_answer(example)}\n" for example in examples)
    return one_bos(encode_texts([f"{solved}Q: {_question(row)}\nA:"], tokenizer, plain=True)[0], tokenizer)


def _chat(row: Prompt, examples: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    earlier = [
        turn
        for example in examples
        for turn in (Turn("user", _question(example)), Turn("assistant", _answer(example)))
    ]
    system = [turn for turn in row.turns if turn.role == "system"]
    rest = [turn for turn in row.turns if turn.role != "system"]
    return render_prompt([*system, *earlier, *rest], tokenizer)


def _question(row: Prompt) -> str:
    return [turn.content for turn in row.turns if turn.role == "user"][-1]


def _answer(row: Prompt) -> str:
    return gold_of(row).answers[0]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
