"""What a training reads of each source, and what was read of its files, as numbers and as tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aligner.data.mix import Mix
from aligner.data.report import DataReport, SourceReport
from aligner.recipe.plan import PlanRow, PlanTable, epochs_text

BARS = "▁▂▃▄▅▆▇█"
BINS = 8
SHOWN_NAME = 40  # characters of a source's paths, the last of them


@dataclass(frozen=True)
class SourcePlan:
    """What a whole training reads of one source, repeats counted.

    `share`: of all tokens, 0..1. `epochs`: how often its rows are read on average; `most`: the one that is read most.
    Of tasks: how often rows come as each template ("task/template") writes them, and after how many solved ones.
    """

    path: str
    rows: int
    tokens: int
    supervised_tokens: int
    share: float
    epochs: float
    most: int
    templates: dict[str, int] = field(default_factory=dict)
    shots: dict[int, int] = field(default_factory=dict)


def plan_sources(report: DataReport, mix: Mix, order: Sequence[int]) -> list[SourcePlan]:
    """The plan of a training that reads the training rows in this order."""
    times = np.bincount(np.asarray(order, dtype=np.int64), minlength=len(mix.sources))
    owners = np.asarray(mix.sources)
    tokens, supervised = (
        [int(each[owners == number] @ times[owners == number]) for number in range(len(report.train))]
        for each in (mix.costs.tokens, mix.costs.supervised_tokens)
    )
    templates: list[Counter[str]] = [Counter() for _ in report.train]
    shots: list[Counter[int]] = [Counter() for _ in report.train]
    for place in mix.costs.of_tasks.tolist():
        if count := int(times[place]):
            source, cost = mix.sources[place], mix.costs[place]
            templates[source][cost.template] += count
            shots[source][cost.shots] += count
    read = [_readings(mix, times, number) for number in range(len(report.train))]
    return [
        SourcePlan(
            path=source.path,
            rows=sum(read[i]),
            tokens=tokens[i],
            supervised_tokens=supervised[i],
            share=tokens[i] / max(sum(tokens), 1),
            epochs=sum(read[i]) / max(len(read[i]), 1),
            most=max(read[i], default=0),
            templates=dict(sorted(templates[i].items())),
            shots=dict(sorted(shots[i].items())),
        )
        for i, source in enumerate(report.train)
    ]


def _readings(mix: Mix, times: NDArray[np.int64], source: int) -> list[int]:
    """How often each row of a source is read, its copies and renderings together."""
    mine = np.flatnonzero(np.asarray(mix.sources) == source)
    _, rows = np.unique(np.asarray(mix.numbers)[mine], return_inverse=True)
    readings = np.zeros(rows.max(initial=-1) + 1, dtype=np.int64)
    np.add.at(readings, rows, times[mine])
    counts: list[int] = readings.tolist()
    return counts


def plan_table(plans: Sequence[SourcePlan]) -> PlanTable:
    """What the training reads, a line a source."""
    return PlanTable(
        ("trained on", "rows", "tokens", "share", "supervised", "epochs", "most often"),
        tuple(
            (
                _name(plan.path),
                f"{plan.rows:,}",
                f"{plan.tokens:,}",
                f"{plan.share:.1%}",
                f"{plan.supervised_tokens / max(plan.tokens, 1):.0%}",
                epochs_text(plan.epochs),
                f"{plan.most}x",
            )
            for plan in plans
        ),
    )


def template_rows(plans: Sequence[SourcePlan]) -> list[PlanRow]:
    """How often each template of each task is used, and how many solved rows come before a row."""
    by_task: dict[str, Counter[str]] = defaultdict(Counter)
    shots: Counter[int] = Counter()
    for plan in plans:
        shots.update(plan.shots)
        for label, count in plan.templates.items():
            task, _, name = label.partition("/")
            by_task[task][name] += count
    rows = [PlanRow(f"task {task}", f"{used.total():,}", _counts(used)) for task, used in by_task.items()]
    if any(shots):
        rows.append(PlanRow("shots", _counts(shots), "how often so many solved rows come before a row"))
    return rows


def _counts(used: Mapping[object, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in used.items())


def report_table(report: DataReport, mix: Mix | None = None) -> PlanTable:
    """What became of the rows of every source; with a mix, how long the training rows are, too."""
    longest = int(mix.costs.tokens.max(initial=0)) if mix else 0
    parts = {
        "train": report.train, "curriculum": report.curriculum, "holdout": report.holdout, "against": report.against
    }  # fmt: skip
    rows = []
    for part, sources in parts.items():
        for number, source in enumerate(sources):
            bars = histogram(_lengths(mix, number), longest) if mix and part == "train" else ""
            rows.append((*_fates(part, source), *([bars] if mix else [])))
    last = (f"tokens, 1 to {longest}",) if mix else ()
    return PlanTable(("source", "read", "used", "dropped", *last), tuple(rows))


def _fates(part: str, source: SourceReport) -> tuple[str, ...]:
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in source.dropped.items())
    return f"{part} {_name(source.path)}", f"{source.rows_read:,}", f"{source.rows_used:,}", dropped or "0"


def _lengths(mix: Mix, source: int) -> list[int]:
    """Tokens of each row of a source, copies aside."""
    mine = np.flatnonzero(np.asarray(mix.sources) == source)[::-1]
    _, lasts = np.unique(np.asarray(mix.numbers)[mine], return_index=True)  # of a row that is rendered anew
    lengths: list[int] = mix.costs.tokens[mine[lasts]].tolist()
    return lengths


def histogram(lengths: Sequence[int], longest: int) -> str:
    """Eight bars: how many of the lengths lie in each eighth of 1 to `longest`, by the fullest; "·" for none."""
    bins = Counter((length - 1) * BINS // max(longest, 1) for length in lengths)
    top = max(bins.values(), default=1)
    return "".join(BARS[(bins[i] * len(BARS) - 1) // top] if bins[i] else "·" for i in range(BINS))


def _name(path: str) -> str:
    return path if len(path) <= SHOWN_NAME else f"…{path[1 - SHOWN_NAME :]}"
