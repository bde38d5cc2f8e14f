"""Formats that share their keys and differ in what stands at one of them."""

from __future__ import annotations

from collections.abc import Mapping


def finer_format(name: str, row: Mapping[str, object]) -> str:
    """The format of a row whose keys are those of `name`."""
    if name == "rankings":
        return _ranked(row["answers"])
    if name == "alpaca" and isinstance(row.get("output"), list):
        return "alpaca_rankings"
    if name == "hh" and isinstance(row["chosen"], list):  # dialogues in messages, not in text
        return "pairs"
    if name == "hh" and "messages" in row:
        return "messages"
    if name == "kto" and not _judged(row["label"]):  # a label of another meaning
        return "messages" if "messages" in row else "completions"
    return name


def _judged(label: object) -> bool:
    """Whether a label is a judgement; in the cells of a table it is text."""
    return isinstance(label, bool) or (isinstance(label, str) and label.lower() in ("true", "false"))


def _ranked(answers: object) -> str:
    first = answers[0] if isinstance(answers, list) and answers else None
    if isinstance(first, dict):
        return next(
            (name for key, name in (("ratings", "ratings"), ("violated", "rules")) if key in first),
            "rankings",
        )
    return "rankings"
