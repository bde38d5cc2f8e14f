"""Draw what `recipes/flan-families.yaml` measured: `python scripts/flan_families.py RUN...`, a run a seed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # run as a script, only this folder is on the path
    sys.path.insert(0, str(ROOT))

from aligner.errors import Problem, RunError  # noqa: E402
from aligner.run.folder import read_results  # noqa: E402
from aligner.run.manifest import Manifest  # noqa: E402
from scripts.finished_runs import asked_runs  # noqa: E402

UNSEEN = ("extract", "compare", "edit", "sentiment", "complete")
ARMS = {"templates": "with templates", "plain": "inputs alone (no templates)"}
COUNTS = (0, 1, 2, 4, 7, 10)  # of families; none: the base, which both arms begin with
MEASURES = {"exact_match_share": "exact match", "answer_nats": "nats to an accepted answer"}
Seed = dict[tuple[str, str], float]  # by measure and model, mean over the families that it was not tuned on


def model_of(arm: str, count: int) -> str:
    """The name of a model in the recipe."""
    return f"{arm}-{count}" if count else "base"


def read_run(run: Path) -> Seed:
    """What a run measured.

    RunError where the run is missing or damaged, is not finished, or measured something else.
    """
    Manifest.read(run)
    results = read_results(run)
    models = dict.fromkeys(model_of(arm, count) for arm in ARMS for count in COUNTS)
    keys = {
        (measure, model): [f"{model}/{measure}[items.{family}]" for family in UNSEEN]
        for measure in MEASURES
        for model in models
    }
    missing = [key for wanted in keys.values() for key in wanted if key not in results]
    if missing:
        what = f"results.json has no {missing[0]}, and {len(missing) - 1} more like it are missing"
        remedy = f"finish it: aligner run recipes/flan-families.yaml -s output={run}"
        raise RunError(Problem(str(run), what, remedy))
    return {of: mean(results[key] for key in wanted) for of, wanted in keys.items()}


def main() -> None:
    """Print the table and write the plot."""
    what = "Accuracy on unseen families against the number of training families."
    seeds, out = asked_runs(what, read_run, plot=Path("flan-families.png"))
    columns = [(measure, arm) for measure in MEASURES for arm in ARMS]
    print(f"| families | {' | '.join(f'{MEASURES[m]}, {ARMS[arm]}' for m, arm in columns)} |")
    print(f"|---|{'---|' * len(columns)}")
    for count in COUNTS:
        cells = [_spread(values_of(seeds, measure, arm, count)) for measure, arm in columns]
        print(f"| {count} | {' | '.join(cells)} |")
    draw(seeds, out)
    print(f"plot: {out}")


def values_of(seeds: Sequence[Seed], measure: str, arm: str, count: int) -> list[float]:
    """One value a seed."""
    return [seed[measure, model_of(arm, count)] for seed in seeds]


def draw(seeds: Sequence[Seed], out: Path) -> None:
    """A panel a measure, a line an arm: mean over seeds, and from the lowest to the highest."""
    figure, panels = plt.subplots(1, len(MEASURES), figsize=(9, 3.6), layout="constrained")
    for axes, (measure, label) in zip(panels, MEASURES.items(), strict=True):
        for arm, name in ARMS.items():
            points = [values_of(seeds, measure, arm, count) for count in COUNTS]
            axes.plot(COUNTS, [mean(values) for values in points], marker="o", label=name)
            axes.fill_between(COUNTS, [min(v) for v in points], [max(v) for v in points], alpha=0.2)
        axes.set(xlabel="families tuned on", ylabel=label, xticks=COUNTS)
        axes.set_ylim(bottom=0)
    panels[0].legend(frameon=False)
    figure.suptitle("Five families that none was tuned on")
    figure.savefig(out, dpi=110)


def _spread(values: list[float]) -> str:
    about = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{about}"


if __name__ == "__main__":
    main()
