"""Draw what `recipes/flan-families.yaml` measured: `python scripts/flan_families.py RUN...`, a run a seed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

UNSEEN = ("extract", "compare", "edit", "sentiment", "complete")
ARMS = {"templates": "with templates", "plain": "inputs alone (no templates)"}
COUNTS = (1, 2, 4, 7, 10)


def unseen_accuracy(results: dict[str, float], model: str) -> float:
    """Exact match, mean over the families that the model was not tuned on."""
    return mean(results[f"{model}/exact_match_share[items.{family}]"] for family in UNSEEN)


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
    seeds = [json.loads((run / "results.json").read_text(encoding="utf-8")) for run in options.runs]
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    print(f"| families | {' | '.join(ARMS.values())} |\n|---|{'---|' * len(ARMS)}")
    table = {
        arm: [[unseen_accuracy(results, f"{arm}-{count}") for results in seeds] for count in COUNTS]
        for arm in ARMS
    }
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
