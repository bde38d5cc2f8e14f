"""Gold at equal KL, by method (`recipes/equal-kl.yaml`): `python scripts/equal_kl.py RUN...`, a run a seed.

Methods are compared where they are as far from the start, on the way there: between two looks (of best-of-n: two n)
gold is taken to lie on the line between them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # run as a script, only this folder is on the path
    sys.path.insert(0, str(ROOT))

from scripts.finished_runs import asked_runs, read_figures, read_looks, spread  # noqa: E402

TRAINED = {"ppo": "PPO", "rloo": "RLOO", "dpo": "DPO", "rules": "PPO on two rules"}
METHODS = TRAINED | {"chosen": "best-of-n"}
CHOSEN = (1, 2, 4, 8, 16, 32, 64)
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)  # nats per response
Curve = list[tuple[float, float]]  # (KL, gold gained), from (0, 0)


def read_run(run: Path) -> dict[str, Curve]:
    """Every method's curve; RunError where one is missing."""
    curves = dict[str, Curve]()
    for method in TRAINED:
        looks = read_looks(run / method)
        curves[method] = [(look.kl, look.gold - looks[0].gold) for look in looks]
    keys = [(f"sft/chosen_kl_nats[best of {n}]", f"sft/chosen_gold_reward[best of {n}]") for n in CHOSEN]
    found = read_figures(run / "chosen", [key for both in keys for key in both])
    curves["chosen"] = [(found[kl], found[gold] - found[keys[0][1]]) for kl, gold in keys]
    return curves


def gold_at(curve: Curve, level: float) -> float | None:
    """Gold where the KL first comes to `level`; None where it never does. By hand: (0, 0), (1, 2) -> 1 at .5."""
    for (before, low), (after, high) in pairwise(curve):
        if before <= level <= after and after > before:
            return low + (high - low) * (level - before) / (after - before)
    return None


def cell(seeds: Sequence[Mapping[str, Curve]], method: str, level: float) -> str:
    """Gold at a KL over the seeds that came there, and how many did, where not all."""
    values = [gold for seed in seeds if (gold := gold_at(seed[method], level)) is not None]
    few = f" ({len(values)} of {len(seeds)} seeds)" if len(values) < len(seeds) else ""
    return f"{spread(values)}{few}" if values else "–"


def print_table(seeds: Sequence[Mapping[str, Curve]]) -> None:
    """A row a method."""
    print(
        f"| gold gained at a KL of | {' | '.join(f'{level:g}' for level in LEVELS)} | at the end, at a KL of |"
    )
    print(f"|{'---|' * (len(LEVELS) + 2)}")
    for method, label in METHODS.items():
        kl, gold = ([seed[method][-1][part] for seed in seeds] for part in (0, 1))
        cells = [*(cell(seeds, method, level) for level in LEVELS), f"{spread(gold)} at {mean(kl):.2f}"]
        print(f"| {label} | {' | '.join(cells)} |")


def plot(seeds: Sequence[Mapping[str, Curve]], out: Path) -> None:
    """Gold over the root of the KL, a line a seed."""
    figure, axes = plt.subplots(figsize=(6, 3.8), layout="constrained")
    for number, (method, label) in enumerate(METHODS.items()):
        for seed in seeds:
            first = label if seed is seeds[0] else None
            kls, gold = zip(*seed[method], strict=True)
            roots = [max(kl, 0.0) ** 0.5 for kl in kls]  # an estimate of none may be below 0
            axes.plot(roots, gold, color=f"C{number}", marker=".", alpha=0.7, label=first)
    axes.set(xlabel="sqrt KL to the start, nats per response", ylabel="gold gained", xlim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(out, dpi=110)
    print(f"plot: {out}")


def main() -> None:
    """Print the tables and write the plot."""
    seeds, out = asked_runs(
        "Gold reward of several methods at equal KL.", read_run, plot=Path("equal-kl.png")
    )
    print_table(seeds)
    plot(seeds, out)


if __name__ == "__main__":
    main()
