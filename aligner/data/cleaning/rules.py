"""The named rules of cleaning, and the groups that stand for several."""

from __future__ import annotations

from collections.abc import Sequence

from aligner.data.cleaning.c4 import LINES, PAGES
from aligner.data.cleaning.gopher import QUALITY
from aligner.data.cleaning.measured import Rule
from aligner.data.cleaning.repetition import REPETITION

RULES: dict[str, Rule] = QUALITY | REPETITION | PAGES
GROUPS: dict[str, tuple[str, ...]] = {
    "gopher_quality": tuple(QUALITY),
    "gopher_repetition": tuple(REPETITION),
    "c4": (*LINES, *PAGES),
}


def text_rules(named: Sequence[str]) -> dict[str, Rule]:
    """The rules against whole texts that these names of rules and groups mean, in the order they are given."""
    return {name: RULES[name] for name in _expanded(named) if name in RULES}


def line_rules(named: Sequence[str]) -> list[str]:
    """The rules against single lines that these names of rules and groups mean, in the order they are given."""
    return [name for name in _expanded(named) if name in LINES]


def _expanded(named: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(rule for name in named for rule in GROUPS.get(name, (name,))))
