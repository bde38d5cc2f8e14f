"""Draw what `recipes/flan-families.yaml` measured: `python scripts/flan_families.py RUN...`, a run a seed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from aligner.errors import Problem, RunError
from aligner.run.folder import read_results
from aligner.run.manifest import Manifest

UNSEEN = ("extract", "compare", "edit", "sentiment", "complete")
ARMS = {"templates": "with templates", "plain": "inputs alone (no templates)"}
COUNTS = (0, 1, 2, 4, 7, 10)  # of families; none: the base, which both arms begin with


def model_of(arm: str, count: int) -> str:
    """The name of a model in the recipe."""
    return f"{arm}-{count}" if count else "base"


def read_run(run: Path) -> dict[str, float]:
    """Exact match by model, mean over the families that it was not tuned on.

    RunError where the run is missing or damaged, is not finished, or measured something else.
    """
    Manifest.read(run)
    results = read_results(run)
    keys = {
        model: [f"{model}/exact_match_share[items.{family}]" for family in UNSEEN]
        for model in (model_of(arm, count) for arm in ARMS for count in COUNTS)
    }
    missing = [key for wanted in keys.values() for key in wanted if key not in results]
    if missing:
        what = f"results.json has no {missing[0]}, and {len(missing) - 1} more like it are missing"
        remedy = f"finish it: aligner run recipes/flan-families.yaml -s output={run}"
        raise RunError(Problem(str(run), what, remedy))
    return {model: mean(results[key] for key in wanted) for model, wanted in keys.items()}


def read_runs(runs: Sequence[Path]) -> list[dict[str, float]]:
    """`read_run` of each; RunError with what is wrong with any of them."""
    found, problems = list[dict[str, float]](), list[Problem]()
    for run in runs:
        try:
            found.append(read_run(run))
        except RunError as error:
            problems += error.problems
    if problems:
        raise RunError(problems)
    return found


def main() -> None:
    """Print the table and write the plot."""
    parser = argparse.ArgumentParser(
        description="Accuracy on unseen families against the number of training families."
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, help="run folders of recipes/flan-families.yaml, one a seed"
    )
    parser.add_argument("--out", type=Path, default=Path("flan-families.png"), help="where the plot goes")
    options = parser.parse_args()
    try:
        seeds = read_runs(options.runs)
    except RunError as error:
        parser.exit(error.exit_code, f"{error}\n")
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    print(f"| families | {' | '.join(ARMS.values())} |\n|---|{'---|' * len(ARMS)}")
    table = {arm: [[results[model_of(arm, count)] for results in seeds] for count in COUNTS] for arm in ARMS}
    for row, count in enumerate(COUNTS):
        print(f"| {count} | {' | '.join(_spread(table[arm][row]) for arm in ARMS)} |")
    for arm, label in ARMS.items():
        axes.plot(COUNTS, [mean(values) for values in table[arm]], marker="o", label=label)
        axes.fill_between(COUNTS, [min(v) for v in table[arm]], [max(v) for v in table[arm]], alpha=0.2)
    axes.set(
        xlabel="families tuned on", ylabel="exact match, five unseen families", xticks=COUNTS, ylim=(0, None)
    )
    axes.legend(frameon=False)
    figure.savefig(options.out, dpi=110)
    print(f"plot: {options.out}")


def _spread(values: list[float]) -> str:
    about = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{about}"


if __name__ == "__main__":
    main()
