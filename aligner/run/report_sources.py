"""The data of a stage as its report shows it: what became of each source's rows, and what training reads of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aligner.recipe.plan import epochs_text
from aligner.run.numbers import MISSING, number


@dataclass(frozen=True)
class SourceLine:
    """One data source of a stage: rows read, used and dropped (with the reasons), and tokens."""

    part: str
    path: str
    format: str
    read: str
    used: str
    dropped: str
    tokens: str


@dataclass(frozen=True)
class ReadLine:
    """What a whole training reads of one source; `templates`: how often a task's rows come as each one writes them."""

    path: str
    rows: str
    tokens: str
    share: str
    supervised: str
    epochs: str
    templates: list[str]
    shots: str


def sources_in(report: Any, part: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every source of a data report with the part it stands in: "train", "holdout", "tasks.items train", ..."""
    if isinstance(report, dict):
        if "rows_used" in report:
            return [(part, report)]
        named = [(f"{part} {key}".strip(), value) for key, value in report.items()]
        return [source for name, value in named for source in sources_in(value, name)]
    if isinstance(report, list):
        return [source for value in report for source in sources_in(value, part)]
    return []


def _remarks(source: dict[str, Any]) -> list[str]:
    """What else a source's report says: rows that stayed or were changed, and how far annotators agree."""
    noted = ", ".join(f"{count} {reason}" for reason, count in (source.get("noted") or {}).items())
    agreement = ", ".join(
        f"{criterion} {MISSING if alpha is None else format(alpha, '.2f')}"
        for criterion, alpha in (source.get("agreement") or {}).items()
    )
    changed = ", ".join(f"{count} {what}" for what, count in (source.get("changed") or {}).items())
    remarks = (
        ("used all the same: ", noted),
        ("cleaning changed: ", changed),
        ("annotators' agreement (alpha): ", agreement),
    )
    return [title + text for title, text in remarks if text]


def source_line(part: str, source: dict[str, Any]) -> SourceLine:
    """A source of a data report, as the page shows it."""
    dropped = source.get("dropped") or {}
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
    return SourceLine(
        part=part,
        path=str(source.get("path", "")),
        format=str(source.get("format", "")),
        read=number(source.get("rows_read", source["rows_used"])),
        used=number(source["rows_used"]),
        dropped="; ".join([reasons or "none", *_remarks(source)]),
        tokens=number(source["tokens"]) if source.get("tokens") else MISSING,
    )


def read_line(source: Mapping[str, Any]) -> ReadLine:
    """A source of a training's plan (`sources` of its manifest), as the page shows it."""
    tokens = source["tokens"]
    by_task: dict[str, list[str]] = defaultdict(list)
    for label, count in (source.get("templates") or {}).items():
        task, _, name = label.partition("/")
        by_task[task].append(f"{name} {number(count)}")
    shots = source.get("shots") or {}
    return ReadLine(
        path=str(source["path"]),
        rows=number(source["rows"]),
        tokens=number(tokens),
        share=number(source["share"], "_share"),
        supervised=number(source["supervised_tokens"] / tokens, "_share") if tokens else MISSING,
        epochs=epochs_text(source["epochs"]),
        templates=[f"{task}: {', '.join(used)}" for task, used in by_task.items()],
        shots=", ".join(f"{shown} before {number(count)} rows" for shown, count in shots.items()),
    )
