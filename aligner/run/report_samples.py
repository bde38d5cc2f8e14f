"""Generations for a page: the same prompts answered by several models, and what a stage wrote as it trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from aligner.run.lines import JsonRow
from aligner.run.numbers import number

PER_FAMILY = 2
AT_MOST = 36
OTHER_ROWS = 12


@dataclass(frozen=True)
class Answer:
    """One model's response and, where it was judged, its true reward."""

    model: str
    text: str
    gold: str


@dataclass(frozen=True)
class Comparison:
    """One prompt with every model's answer."""

    prompt: str
    family: str
    right: str
    answers: list[Answer]


@dataclass(frozen=True)
class SideBySide:
    """The comparisons shown, and how many there are in the file."""

    shown: list[Comparison]
    total: int


@dataclass(frozen=True)
class SampleTable:
    """Rows of a stage's samples.jsonl as they are: the newest few."""

    columns: list[str]
    rows: list[list[str]]
    total: int


def side_by_side(rows: Sequence[JsonRow]) -> SideBySide:
    """The first few prompts of each family, in the file's order: no picking of good ones."""
    compared = [row for row in rows if isinstance(row.get("responses"), dict)]
    taken: dict[str, int] = {}
    shown: list[Comparison] = []
    for row in compared:
        family = str(row.get("family", ""))
        taken[family] = taken.get(family, 0) + 1
        if taken[family] <= PER_FAMILY and len(shown) < AT_MOST:
            shown.append(_comparison(row, family))
    return SideBySide(shown, len(compared))


def other_samples(rows: Sequence[JsonRow]) -> SampleTable | None:
    """The last rows a stage wrote while it trained; None when it wrote none."""
    if not rows:
        return None
    newest = rows[-OTHER_ROWS:]
    columns = list(dict.fromkeys(key for row in newest for key in row))
    return SampleTable(columns, [[_spelt(row.get(key, "")) for key in columns] for row in newest], len(rows))


def _comparison(row: JsonRow, family: str) -> Comparison:
    golds = row.get("gold_rewards") or {}
    answers = [
        Answer(str(model), str(text), number(golds[model]) if model in golds else "")
        for model, text in row["responses"].items()
    ]
    return Comparison(_prompt_text(row.get("prompt", "")), family, _right(row.get("gold")), answers)


def _prompt_text(prompt: object) -> str:
    if isinstance(prompt, list):
        return "\n".join(
            f"{turn.get('role')}: {turn.get('content')}" for turn in prompt if isinstance(turn, dict)
        )
    return str(prompt)


def _right(gold: object) -> str:
    """What a right answer is, in a few words: the accepted answers, or the kind of prompt."""
    if isinstance(gold, dict):
        answers = gold.get("answers") or []
        return " | ".join(str(answer) for answer in answers) or str(gold.get("kind", ""))
    return "" if gold is None else str(gold)


def _spelt(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
