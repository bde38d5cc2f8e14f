"""Numbers of a report as people read them, and the results of several models turned into one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from aligner.run.metrics import (
    FIRST,
    RESULTS,
    ResultKey,
    as_of_ppo,
    better,
    describe,
    parse_result_key,
    ppo_name,
)
from aligner.run.numbers import MISSING, number

# The figures that are looked for first and the others, both, or those of single families ("suite.family").
Part = Literal["first", "rest", "suites", "families"]


@dataclass(frozen=True)
class Cell:
    """A number as shown, its 95 % interval where it has one, and whether it is the best of its row."""

    text: str
    best: bool = False
    interval: str = ""


@dataclass(frozen=True)
class ResultRow:
    """One metric (with one qualifier) for every model."""

    name: str
    note: str
    cells: list[Cell]


@dataclass(frozen=True)
class ResultTable:
    """A metric's rows, one column a model."""

    title: str
    explained: str
    columns: list[str]
    rows: list[ResultRow]


@dataclass(frozen=True)
class Movement:
    """Where a number started in a stage and where it ended."""

    stage: str
    name: str
    first: str
    last: str
    verdict: str
    since: int  # the step of the first one


# What a stage is judged by, in the words of a headline; the first and last logged values are compared.
_HEADLINES = {
    "holdout/bits_per_byte": "held-out bits per byte",
    "holdout/loss_nats": "held-out loss (nats per token)",
    "train/loss_nats": "training loss (nats per token)",
    "reward/accuracy_share": "preference accuracy, training pairs",
    "holdout/accuracy_share": "preference accuracy, held-out pairs",
    "ppo/holdout_proxy_reward": "learned reward, held-out prompts",
    "ppo/holdout_gold_reward": "true (gold) reward, held-out prompts",
    "ppo/proxy_reward": "learned reward, training prompts",
    "kl/ref_nats_per_response": "KL to the reference (nats per response), training prompts",
    "kl/holdout_ref_nats_per_response": "KL to the reference (nats per response), held-out prompts",
    "ppo/response_tokens": "response length (tokens), training prompts",
    "ppo/holdout_response_tokens": "response length (tokens), held-out prompts",
}


def movements(stage: str, rows: Sequence[Mapping[str, float]]) -> list[Movement]:
    """The headline numbers of a stage: first logged, last logged, and whether that is the way they should go."""
    found = []
    rows = [as_of_ppo(row) for row in rows]
    for key, name in _HEADLINES.items():
        logged = [row for row in rows if key in row]
        if len(logged) > 1:
            first, last = float(logged[0][key]), float(logged[-1][key])
            verdict, since = _verdict(key, first, last), int(logged[0]["step"])
            found.append(Movement(stage, name, number(first, key), number(last, key), verdict, since))
    return found


def result_tables(results: Mapping[str, float], part: Part) -> list[ResultTable]:
    """results.json pivoted: a table a metric, a row a qualifier, a column an area (a model).

    The ends of a metric's interval stand beside it, not in rows of their own.
    """
    values = {parse_result_key(key): value for key, value in results.items()}
    ends = {end for key in values for end in _interval_names(key.metric)}
    shown = [key for key in values if key.metric not in ends]
    chosen = [key for key in shown if _is_in(part, key, shown)]
    tables = []
    for columns in _column_groups(chosen):
        ours = [key for key in chosen if key.area in columns]
        for metric in sorted(dict.fromkeys(key.metric for key in ours), key=_importance):
            qualifiers = dict.fromkeys(key.qualifier for key in ours if key.metric == metric)
            rows = [_result_row(metric, qualifier, columns, values) for qualifier in qualifiers]
            tables.append(ResultTable(plain(metric), describe(metric), columns, rows))
    return tables


def _is_in(part: Part, key: ResultKey, shown: Sequence[ResultKey]) -> bool:
    """First are the figures of all rows; where a metric has none, those of whole suites."""
    if "." in key.qualifier:
        return part == "families"
    whole = not key.qualifier or all(other.qualifier for other in shown if other.metric == key.metric)
    first = key.metric in FIRST and whole
    return part == ("first" if first else "rest") or part == "suites"


def start_and_end(results: Mapping[str, float]) -> tuple[list[ResultTable], dict[str, float]]:
    """Figures that a stage has of its start, too, as tables of both; and the results without them."""
    both = [key for key in results if f"{key}[start]" in results]
    tables = []
    for key in both:
        cells = [Cell(number(results[name], key)) for name in (f"{key}[start]", key)]
        title = _HEADLINES.get(ppo_name(key), plain(key))
        tables.append(ResultTable(title, describe(key), ["start", "end"], [ResultRow("all", "", cells)]))
    return tables, {key: results[key] for key in results if key.removesuffix("[start]") not in both}


def _column_groups(keys: Sequence[ResultKey]) -> list[list[str]]:
    """Areas that share a metric stand in one table; an area of its own (the reward model) has one of its own."""
    groups: list[list[str]] = []
    for metric in dict.fromkeys(key.metric for key in keys):
        areas = list(dict.fromkeys(key.area for key in keys if key.metric == metric))
        touching = [group for group in groups if set(group) & set(areas)]
        merged = list(dict.fromkeys([*(area for group in touching for area in group), *areas]))
        groups = [*(group for group in groups if group not in touching), merged]
    order = list(dict.fromkeys(key.area for key in keys))
    return sorted(
        [sorted(group, key=order.index) for group in groups], key=lambda group: order.index(group[0])
    )


def _interval_names(metric: str) -> tuple[str, str]:
    """What the ends of a metric's interval are called: x_low and x_high, or x_low_share and x_high_share."""
    unit = "_share" if metric.endswith("_share") else ""
    name = metric.removesuffix("_share")
    return f"{name}_low{unit}", f"{name}_high{unit}"


def _importance(metric: str) -> int:
    """Place among what is looked for first, then in the glossary; metrics it does not know come last."""
    known = [*FIRST, *RESULTS]
    return known.index(metric) if metric in known else len(known)


def plain(metric: str) -> str:
    """A metric's name in words, its unit last: "exact_match_share" is "exact match"."""
    name = metric.rpartition("/")[2].removesuffix("_share").replace("_nats_per_", "_in_nats_per_")
    return name.replace("_", " ").replace("kl ", "KL ")


def _result_row(
    metric: str, qualifier: str, columns: Sequence[str], values: Mapping[ResultKey, float]
) -> ResultRow:
    numbers = [values.get(ResultKey(area, metric, qualifier)) for area in columns]
    known = [value for value in numbers if value is not None]
    way = better(metric)
    best = {"higher": max, "lower": min}[way](known) if way and len(set(known)) > 1 else None
    cells = []
    for area, value in zip(columns, numbers, strict=True):
        ends = [values.get(ResultKey(area, end, qualifier)) for end in _interval_names(metric)]
        cells.append(
            Cell(MISSING)
            if value is None
            else Cell(number(value, metric), value == best, interval(metric, *ends))
        )
    return ResultRow(qualifier or "all", f"{way} is better" if way else "", cells)


def interval(metric: str, low: float | None, high: float | None) -> str:
    """The ends of a metric's interval, "0.270 to 0.345"; "" where they are not known."""
    return "" if low is None or high is None else f"{number(low, metric)} to {number(high, metric)}"


def _verdict(key: str, first: float, last: float) -> str:
    way = better(key)
    if not way or first == last or key.startswith("train/"):  # of a few rows each: noise says nothing
        return ""
    return "better" if (last > first) == (way == "higher") else "worse"
