"""Rewards by rules (survey arXiv:2303.18223, 5.2.2; Sparrow, arXiv:2209.14375): a broken rule costs its weight, once.

A file of rules is JSON lines, {"rule": name, "forbids": pattern} or {"rule": name, "requires": pattern}, with a
"weight" (1 when left out). It is the sense of the pair format `rules`, whose `criteria` say what each broken rule
costs; here a regular expression, searched for in the response, says whether it is broken.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from aligner.errors import Problem, RecipeError, at, nearest
from aligner.rl.answered import Answered
from aligner.run.manifest import sha256_file

_KEYS = ("rule", "forbids", "requires", "weight")


@dataclass(frozen=True)
class Rule:
    """Broken where `pattern` is found, or, if it is required, where it is not."""

    name: str
    pattern: re.Pattern[str]
    required: bool
    weight: float

    def broken_by(self, text: str) -> bool:
        """Whether a response breaks it."""
        return (self.pattern.search(text) is None) == self.required


@dataclass(frozen=True)
class RuleReward:
    """Minus the weights of the rules that a response breaks."""

    path: str
    rules: tuple[Rule, ...]
    sha256: str

    @property
    def identity(self) -> str:
        """The file, and what is in it."""
        return f"{self.path}#{self.sha256[:16]}"

    def __call__(self, answered: Answered) -> Tensor:
        """(B,)."""
        costs = [sum(rule.weight for rule in self.rules if rule.broken_by(text)) for text in answered.texts]
        return answered.numbers([0.0 - cost for cost in costs], self.path)


def read_rules(path: str) -> RuleReward:
    """The rules of a file; RecipeError with every line that is none."""
    rules: list[Rule] = []
    problems: list[Problem] = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(Problem(path, f"cannot be read: {error}", "give a file of JSON lines")) from error
    for number, line in enumerate(lines, 1):
        try:
            rules += [_rule(line)] if line.strip() else []
        except ValueError as error:
            remedy = 'write {"rule": "no_apology", "forbids": "[Ss]orry", "weight": 1.0}, or "requires"'
            problems.append(Problem(at(path, number), str(error), remedy))
    names = [rule.name for rule in rules]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems += [
        Problem(path, f'two rules are called "{name}"', "give each a name of its own") for name in twice
    ]
    if problems or not rules:
        raise RecipeError(problems or Problem(path, "has no rule in it", "give at least one"))
    return RuleReward(path, tuple(rules), sha256_file(Path(path)))


def _rule(line: str) -> Rule:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not a row of JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    if unknown := [key for key in row if key not in _KEYS]:
        raise ValueError(f'"{unknown[0]}" is no key of a rule; {nearest(unknown[0], _KEYS)}')
    kinds = [key for key in ("forbids", "requires") if key in row]
    if not isinstance(row.get("rule"), str) or len(kinds) != 1 or not isinstance(row[kinds[0]], str):
        raise ValueError('a rule has a "rule", its name, and one of "forbids" and "requires", a pattern')
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise ValueError(f'"weight" is {weight!r}, which is no number above 0')
    try:
        return Rule(row["rule"], re.compile(row[kinds[0]]), kinds[0] == "requires", float(weight))
    except re.error as error:
        raise ValueError(f'"{kinds[0]}" is no regular expression: {error}') from error
