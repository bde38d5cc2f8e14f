"""What PPO cost and PTX gave back (`recipes/alignment-tax.yaml`): `python scripts/alignment_tax.py RUN...`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # run as a script, only this folder is on the path
    sys.path.insert(0, str(ROOT))

from scripts.finished_runs import asked_runs, read_figures, spread  # noqa: E402

ARMS = {"sft": "SFT", "ppo": "PPO", "ptx-low": "PPO, PTX .1", "ptx": "PPO, PTX 1"}
BITS, GOLD, KL = "bits_per_byte", "gold_reward", "kl_nats_per_response"
FIGURES = {
    BITS: "bits per byte",
    "exact_match_share[items]": "exact match, items",
    "exact_match_share[phrasings]": "phrasings",
    GOLD: "gold of samples",
    KL: "KL to SFT, nats",
}
WANTED = [f"{arm}/{figure}" for arm in ARMS for figure in FIGURES if (arm, figure) != ("sft", KL)]


def read_run(run: Path) -> Mapping[str, float]:
    """The figures of a finished run; SFT is no nats from itself."""
    return {f"sft/{KL}": 0.0, **read_figures(run, WANTED)}


def repaired(figures: Mapping[str, float], arm: str, figure: str = BITS) -> float:
    """The share of what PPO cost in a figure that an arm gives back: 0 for PPO itself, 1 for SFT."""
    before, paid = figures[f"sft/{figure}"], figures[f"ppo/{figure}"]
    return (figures[f"{arm}/{figure}"] - paid) / (before - paid)


def print_table(seeds: Sequence[Mapping[str, float]]) -> None:
    """A row an arm: means over seeds with their intervals, and paired differences to SFT in brackets."""
    print(
        f"| | {' | '.join(FIGURES.values())} | of the tax in bits given back |\n|{'---|' * (len(FIGURES) + 2)}"
    )
    for arm, label in ARMS.items():
        cells = []
        for figure in FIGURES:
            gaps = [one[f"{arm}/{figure}"] - one[f"sft/{figure}"] for one in seeds]
            paired = f" ({spread(gaps)})" if arm != "sft" and figure != KL else ""
            cells.append(spread([one[f"{arm}/{figure}"] for one in seeds]) + paired)
        back = spread([repaired(one, arm) for one in seeds], 2) if arm.startswith("ptx") else "–"
        print(f"| {label} | {' | '.join(cells)} | {back} |")


def plot(seeds: Sequence[Mapping[str, float]], out: Path) -> None:
    """Gold against bits per byte, a point a seed and arm; a line joins a seed's points."""
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for one in seeds:
        path = [(one[f"{arm}/{BITS}"], one[f"{arm}/{GOLD}"]) for arm in ARMS]
        axes.plot(*zip(*path, strict=True), color="lightgrey", linewidth=1, zorder=0)
    for arm, label in ARMS.items():
        axes.scatter(
            [one[f"{arm}/{BITS}"] for one in seeds], [one[f"{arm}/{GOLD}"] for one in seeds], label=label
        )
    axes.set(xlabel="bits per byte of held-out documents (lower is better)", ylabel="gold reward of samples")
    axes.legend(frameon=False)
    figure.savefig(out, dpi=110)
    print(f"plot: {out}")


def main() -> None:
    """Print the tables and write the plot."""
    seeds, out = asked_runs(
        "The alignment tax, and its repair by PTX.", read_run, plot=Path("alignment-tax.png")
    )
    print_table(seeds)
    plot(seeds, out)


if __name__ == "__main__":
    main()
