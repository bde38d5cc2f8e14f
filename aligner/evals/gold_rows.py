"""The gold judge over many rows: a reward function, and the shares that it can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aligner.data.rows import Prompt
from aligner.errors import DataError, Problem
from aligner.evals.gold import Gold, gold_reward, judge


def gold_of(row: Prompt) -> Gold:
    """What is accepted as an answer to this row; a row without gold is an error."""
    if not row.gold:
        remedy = 'add "gold", or leave it to a reward model'
        raise DataError(Problem(str(row.origin), "the prompt has no gold answer", remedy))
    return Gold.from_row({"gold": row.gold})


def score_rows(rows: Sequence[Prompt], responses: Sequence[str], finished: Sequence[bool]) -> list[float]:
    """Gold reward of each response, in [-1, 1]; `rows` repeats a prompt for each of its responses."""
    return [
        gold_reward(response, gold_of(row), finished=done)
        for row, response, done in zip(rows, responses, finished, strict=True)
    ]


@dataclass(frozen=True)
class Withheld:
    """Shares of responses to answerable prompts that do not answer: "I do not know" (abstained), refusal (declined)."""

    abstained: float
    declined: float


def withheld_shares(
    rows: Sequence[Prompt], responses: Sequence[str], finished: Sequence[bool]
) -> Withheld | None:
    """How often what can be answered is not; None without answerable prompts."""
    contents = [
        judge(response, gold_of(row), finished=done).content
        for row, response, done in zip(rows, responses, finished, strict=True)
        if gold_of(row).kind == "answerable"
    ]
    if not contents:
        return None
    return Withheld(contents.count("abstained") / len(contents), contents.count("declined") / len(contents))
