"""What the experiments' scripts share: finished runs, looks at held-out prompts, intervals over seeds."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import TypeVar

from aligner.errors import Problem, RunError
from aligner.run.folder import read_results
from aligner.run.lines import JsonLines
from aligner.run.manifest import Manifest

Found = TypeVar("Found")
STUDENT_T = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
)  # .975 quantile; 1 to 9 degrees of freedom
KL = "kl/holdout_ref_nats_per_response"


@dataclass(frozen=True)
class Look:
    """The same held-out prompts answered after `step` steps; means over the answers, KL in nats per response."""

    step: int
    kl: float
    proxy: float
    gold: float


def read_each(runs: Sequence[Path], read: Callable[[Path], Found]) -> list[Found]:
    """`read` of each run; RunError with what is wrong with any of them."""
    found, problems = list[Found](), list[Problem]()
    for run in runs:
        try:
            found.append(read(run))
        except RunError as error:
            problems += error.problems
    if problems:
        raise RunError(problems)
    return found


def asked_runs(what: str, read: Callable[[Path], Found], *, plot: Path) -> tuple[list[Found], Path]:
    """What `read` finds in each run that the command line names, and where it wants the plot.

    `plot`, named after the recipe, is where that goes otherwise. Exits with what is wrong with any of the runs.
    """
    parser = argparse.ArgumentParser(description=what)
    recipe = f"run folders of recipes/{plot.stem}.yaml, one a seed"
    parser.add_argument("runs", nargs="+", type=Path, help=recipe)
    parser.add_argument("--out", type=Path, default=plot, help="where the plot goes")
    asked = parser.parse_args()
    try:
        return read_each(asked.runs, read), asked.out
    except RunError as error:
        parser.exit(error.exit_code, f"{error}\n")


def finished(run: Path) -> Manifest:
    """The manifest of a run that came to its end; else RunError."""
    manifest = Manifest.read(run)
    if manifest.status != "finished":
        raise RunError(
            Problem(str(run), f"is {manifest.status}", "the command that began it goes on with it")
        )
    return manifest


def read_looks(run: Path) -> list[Look]:
    """The looks of a finished run at its held-out prompts, in order; RunError where it had no such figures."""
    area = finished(run).stage
    rows = [row for row in JsonLines(run / "metrics.jsonl").rows() if f"{area}/holdout_gold_reward" in row]
    if not rows:
        raise RunError(
            Problem(str(run), "never looked at held-out prompts with gold", "give it data.holdout")
        )
    proxy, gold = f"{area}/holdout_proxy_reward", f"{area}/holdout_gold_reward"
    return [Look(int(row["step"]), row[KL], row[proxy], row[gold]) for row in rows]


def read_figures(run: Path, wanted: Sequence[str]) -> Mapping[str, float]:
    """results.json of a finished run; RunError where one of the figures is not in it."""
    finished(run)
    results = read_results(run)
    if missing := [key for key in wanted if key not in results]:
        what = f"results.json has no {missing[0]}, and {len(missing) - 1} more like it are missing"
        raise RunError(Problem(str(run), what, "it measured something else; name a run of the recipe"))
    return results


def named_by(run: Path, output: str, named: str) -> Path:
    """Where a path of a run's recipe lies, seen from here: it was written for the folder that `output` lies in."""
    own, parts = run.resolve().parts, Path(output).parts
    worked_in = Path(*own[: -len(parts)]) if own[-len(parts) :] == parts else Path()
    return worked_in / named


def half_width(values: Sequence[float]) -> float:
    """Of the 95 % interval of the mean (Student's t; for more than ten values a little wide).

    By hand: 1, 2, 3 -> 4.303 * 1 / sqrt 3 = 2.484.
    """
    return STUDENT_T[min(len(values), len(STUDENT_T) + 1) - 2] * stdev(values) / sqrt(len(values))


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean, and the half-width of its interval where there are several."""
    about = f" ± {half_width(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{about}"
