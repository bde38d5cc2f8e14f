"""Gold and proxy over the distance from the start, a run a seed: `python scripts/over_optimisation.py RUN...`.

Of runs of `recipes/over-optimisation.yaml`. With d = sqrt(KL), Gao et al. 2022 (arXiv:2210.10760, 3.1) found gold to
follow d (alpha - beta d) for best-of-n and d (alpha - beta log d) for reinforcement learning, both from 0 at the start.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # run as a script, only this folder is on the path
    sys.path.insert(0, str(ROOT))

from scripts.finished_runs import asked_runs, read_figures, read_looks, spread  # noqa: E402

PAIRS = (300, 2000, 8000)
CHOSEN = (1, 2, 4, 8, 16, 32, 64)
Form = Literal["best-of-n", "rl"]
FORMS: dict[Form, str] = {"rl": "PPO", "best-of-n": "best-of-n"}
RESAMPLES = 1000


@dataclass(frozen=True)
class Point:
    """A policy: d = sqrt(KL to the start), and how much more reward than the start it has."""

    d: float
    proxy: float
    gold: float


@dataclass(frozen=True)
class Arm:
    """One reward model: what PPO and best-of-n made of it, and its accuracy on held-out pairs."""

    accuracy: float
    rl: list[Point]
    chosen: list[Point]


@dataclass(frozen=True)
class Fit:
    """The coefficients of a form, with their 95 % bootstrap intervals."""

    alpha: float
    beta: float
    alpha_interval: tuple[float, float]
    beta_interval: tuple[float, float]


def columns(d_N: np.ndarray, form: Form) -> np.ndarray:
    """What alpha and beta are multiplied with: (N, 2). At d = 0 both are 0, which is the limit of d log d."""
    bend_N = d_N if form == "best-of-n" else np.log(np.where(d_N > 0, d_N, 1.0))
    return np.stack([d_N, -d_N * bend_N], axis=1)


def coefficients(d: Sequence[float], reward: Sequence[float], form: Form) -> tuple[float, float]:
    """alpha and beta of the least squares fit."""
    found = np.linalg.lstsq(columns(np.asarray(d), form), np.asarray(reward), rcond=None)[0]
    return float(found[0]), float(found[1])


def fit(seeds: Sequence[Sequence[tuple[float, float]]], form: Form, *, resamples: int = RESAMPLES) -> Fit:
    """Fit (d, reward) points of all seeds together; the bootstrap draws seeds anew, and points in each of them."""
    alpha, beta = coefficients(*zip(*(point for seed in seeds for point in seed), strict=True), form)
    generator = np.random.default_rng(0)
    again = []
    for _ in range(resamples):
        drawn = [np.asarray(seeds[i]) for i in generator.integers(len(seeds), size=len(seeds))]
        rows = np.concatenate([points[generator.integers(len(points), size=len(points))] for points in drawn])
        again.append(coefficients(rows[:, 0].tolist(), rows[:, 1].tolist(), form))
    low, high = np.percentile(again, [2.5, 97.5], axis=0)
    return Fit(alpha, beta, (float(low[0]), float(high[0])), (float(low[1]), float(high[1])))


def fitted(d: np.ndarray, found: Fit, form: Form) -> np.ndarray:
    """The curve of a fit."""
    return columns(d, form) @ np.asarray([found.alpha, found.beta])


def from_start(kl: Sequence[float], proxy: Sequence[float], gold: Sequence[float]) -> list[Point]:
    """Points relative to the first; an estimated KL below 0 counts as none."""
    return [
        Point(sqrt(max(k, 0.0)), p - proxy[0], g - gold[0]) for k, p, g in zip(kl, proxy, gold, strict=True)
    ]


def read_arm(run: Path, pairs: int) -> Arm:
    """One reward model's part of a finished pipeline; else RunError."""
    looks = read_looks(run / f"ppo-{pairs}")
    what = ("kl_nats", "proxy_reward", "gold_reward")
    keys = {name: [f"sft/chosen_{name}[best of {n}]" for n in CHOSEN] for name in what}
    accuracy = "reward/accuracy_share"
    found = read_figures(
        run / f"chosen-{pairs}", [accuracy, *(key for some in keys.values() for key in some)]
    )
    rl = from_start(*zip(*((look.kl, look.proxy, look.gold) for look in looks), strict=True))
    chosen = from_start(*([found[key] for key in keys[name]] for name in what))
    return Arm(found[accuracy], rl, chosen)


def read_run(run: Path) -> dict[int, Arm]:
    """All arms of a seed."""
    return {pairs: read_arm(run, pairs) for pairs in PAIRS}


def golds(points: Sequence[Point]) -> list[tuple[float, float]]:
    """(d, gold) of each."""
    return [(point.d, point.gold) for point in points]


def print_table(seeds: Sequence[Mapping[int, Arm]]) -> None:
    """Two tables, PPO's and best-of-n's: where they end, the best gold on the way, and the fit."""
    for form, title in FORMS.items():
        print(f"\n| {title}: pairs | accuracy on held-out pairs | sqrt KL at the end | proxy gained |"
              " gold gained, most | at the end | alpha (interval) | beta (interval) |")  # fmt: skip
        print(f"|{'---|' * 8}")
        for pairs in PAIRS:
            arms = [seed[pairs] for seed in seeds]
            curves = [arm.rl if form == "rl" else arm.chosen for arm in arms]
            found = fit([golds(curve) for curve in curves], form)
            cells = [
                spread([arm.accuracy for arm in arms]),
                spread([curve[-1].d for curve in curves], 2),
                spread([curve[-1].proxy for curve in curves], 2),
                spread([max(point.gold for point in curve) for curve in curves]),
                spread([curve[-1].gold for curve in curves]),
                f"{found.alpha:.3f} ({found.alpha_interval[0]:.3f}, {found.alpha_interval[1]:.3f})",
                f"{found.beta:.3f} ({found.beta_interval[0]:.3f}, {found.beta_interval[1]:.3f})",
            ]
            print(f"| {pairs} | {' | '.join(cells)} |")


def plot(seeds: Sequence[Mapping[int, Arm]], out: Path) -> None:
    """Gold (points and fit) and proxy (dashed) over sqrt(KL), PPO beside best-of-n."""
    figure, both = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axes, (form, title) in zip(both, FORMS.items(), strict=True):
        for number, pairs in enumerate(PAIRS):
            curves = [seed[pairs].rl if form == "rl" else seed[pairs].chosen for seed in seeds]
            colour = f"C{number}"
            for curve in curves:
                axes.scatter([p.d for p in curve], [p.gold for p in curve], s=8, color=colour)
                axes.plot([p.d for p in curve], [p.proxy for p in curve], "--", color=colour, alpha=0.4)
            far = np.linspace(0, max(point.d for curve in curves for point in curve), 100)
            line = fitted(far, fit([golds(curve) for curve in curves], form, resamples=1), form)
            axes.plot(far, line, color=colour, label=f"{pairs} pairs")
        axes.set(title=title, xlabel="sqrt KL, nats", ylabel="gold gained (dashed: proxy, in its std)")
        axes.legend(frameon=False)
    figure.savefig(out, dpi=110)
    print(f"\nplot: {out}")


def main() -> None:
    """Print the tables and write the plot."""
    seeds, out = asked_runs(
        "Over-optimisation of reward models, by number of pairs.",
        read_run,
        plot=Path("over-optimisation.png"),
    )
    print_table(seeds)
    plot(seeds, out)


if __name__ == "__main__":
    main()
