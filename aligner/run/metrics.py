"""The numbers of a run: what each is called, what it means, and the file they go to."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from aligner.errors import Problem, TrainingError, nearest
from aligner.run.glossary import BETTER, FIRST, METRICS, RESULTS, REWARDED, WATCHED
from aligner.run.lines import JsonLines, JsonRow

_RESULT_KEY = re.compile(r"(?P<area>[\w.-]+)/(?P<metric>\w+)(?:\[(?P<qualifier>[^\[\]]+)\])?")


class ResultKey(NamedTuple):
    """`area/metric_unit[qualifier]` in its parts; `qualifier` is "" where there is none."""

    area: str
    metric: str
    qualifier: str


class Metrics:
    """metrics.jsonl: one line a logged step, `{"step", "seconds", "area/what_unit": number, ...}`."""

    def __init__(self, path: Path, *, seconds: Callable[[], float], writes: bool = True) -> None:
        """`seconds` tells how long the run has trained, all its sessions together; `writes`: see `JsonLines`."""
        self._lines = JsonLines(path, writes=writes)
        self._seconds = seconds

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line. KeyError for a metric `METRICS` lacks, TrainingError for a value that is not finite."""
        for key in values:
            if key not in METRICS:
                raise KeyError(f'metric "{key}" is not defined in METRICS; {nearest(key, list(METRICS))}')
        numbers = {key: float(value) for key, value in values.items()}
        check_finite(numbers, where=f"step {step}")
        self._lines.append([{"step": step, "seconds": round(self._seconds(), 3), **numbers}])

    def rows(self) -> list[JsonRow]:
        """Every logged line, oldest first."""
        return self._lines.rows()

    def cut_back(self, step: int) -> None:
        """Drop what was logged after `step`; -1 drops all. A stage calls it with the step it resumes from."""
        self._lines.cut_back(step)

    def keep_first(self, count: int) -> None:
        """Drop every line after the first `count`."""
        self._lines.keep_first(count)


def check_finite(values: Mapping[str, float], *, where: str) -> None:
    """TrainingError that names every value that is NaN or infinite."""
    bad = [f"{key} is {value}" for key, value in values.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            Problem(
                where,
                "; ".join(bad),
                "lower the learning rate, or look at the rows of this step; no number is made up",
            )
        )


def parse_result_key(key: str) -> ResultKey:
    """The parts of a key of results.json; ValueError when it has another form."""
    match = _RESULT_KEY.fullmatch(key)
    if match is None:
        raise ValueError(f'result "{key}" is not of the form area/metric_unit or area/metric_unit[qualifier]')
    return ResultKey(match["area"], match["metric"], match["qualifier"] or "")


def merged_results(stages: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The results of several stages in one; a key that more than one stage has gets the stage as its qualifier."""
    count = Counter(key for results in stages.values() for key in results)
    return {
        key if count[key] == 1 else _of_stage(key, name): value
        for name, results in stages.items()
        for key, value in results.items()
    }


def _of_stage(key: str, stage: str) -> str:
    area, metric, qualifier = parse_result_key(key)
    return f"{area}/{metric}[{stage} {qualifier}]" if qualifier else f"{area}/{metric}[{stage}]"


def describe(key: str) -> str:
    """One sentence on a metric or result key; "" for one nobody has described."""
    if key in METRICS:
        return METRICS[key]
    metric = parse_result_key(key).metric if "/" in key else key
    return RESULTS.get(metric, "") or next(
        (text for name, text in METRICS.items() if name.endswith(f"/{metric}")), ""
    )


def better(metric: str) -> Literal["higher", "lower", ""]:
    """Which way a metric (with or without its area) should go; "" where it depends."""
    return BETTER.get(metric.rpartition("/")[2], "")


def as_of_ppo(row: Mapping[str, float]) -> dict[str, float]:
    """Figures of another stage's policy under PPO's names, where PPO has the same: so they share pictures and words."""
    return {ppo_name(key): value for key, value in row.items()}


def ppo_name(key: str) -> str:
    """PPO's name of a figure that another stage has, or the key itself."""
    area, _, name = key.partition("/")
    same = f"ppo/{name}"
    return same if area in (*WATCHED, *REWARDED) and same in METRICS else key


__all__ = [
    "FIRST",
    "METRICS",
    "RESULTS",
    "Metrics",
    "ResultKey",
    "as_of_ppo",
    "better",
    "check_finite",
    "describe",
    "merged_results",
    "parse_result_key",
    "ppo_name",
]
