"""Loss spikes: a loss far above what it was, three steps in a row, is told with the rows that were read meanwhile.

Far above: more than the mean of the 100 steps before and 6 of their standard deviations. Noise does not get there three
times; bad rows and too high a learning rate do. Nothing is stopped, and no number changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean, pstdev
from typing import NamedTuple

from aligner.errors import Problem
from aligner.run.folder import RunFolder
from aligner.run.progress import say

WINDOW = 100  # steps that say what is usual; before there are so many, nothing is judged
DEVIATIONS = 6.0
IN_A_ROW = 3
NAMED = 8  # rows of a step in the message; spikes.jsonl has all

RowsOf = Callable[[int], Sequence[str]]  # a step, from 1 -> its rows, each by its place


class Spike(NamedTuple):
    """`losses` of steps in a row, each far above those of the steps before, which had this mean and deviation."""

    losses: list[float]
    mean: float
    deviation: float


@dataclass
class SpikeRule:
    """Sees one loss, step by step.

    usual: the last ones, without those of `high`, which are far above them and may be the beginning of a spike. A spike
    that has been told is usual from then on, so a loss that stays where it went is told once.
    """

    usual: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def see(self, loss: float) -> Spike | None:
        """The spike that this step's loss completes, if it does.

        By hand: 1 and 3 by turns, then 8.1 three times: mean 2, deviation 1, and the third 8.1 completes it.
        """
        mean, deviation = (fmean(self.usual), pstdev(self.usual)) if self._judges else (0.0, 0.0)
        self.high.append(loss)
        is_high = deviation > 0 and loss > mean + DEVIATIONS * deviation
        if is_high and len(self.high) < IN_A_ROW:
            return None
        seen, self.high = self.high, []
        self.usual = [*self.usual, *seen][-WINDOW:]
        return Spike(seen, mean, deviation) if is_high else None

    def go_on(self, usual: Sequence[float] = (), high: Sequence[float] = ()) -> None:
        """As another session's rule was; one of an older version kept nothing."""
        self.usual, self.high = list(usual), list(high)

    @property
    def _judges(self) -> bool:
        return len(self.usual) == WINDOW


@dataclass
class Spikes:
    """The losses of a run, each under the rule; a spike is said, and written to spikes.jsonl with all of its rows."""

    run: RunFolder
    rows_of: RowsOf
    rules: Mapping[str, SpikeRule] = field(default_factory=lambda: defaultdict(SpikeRule))

    def see(self, step: int, losses: Mapping[str, float]) -> None:
        """What each loss was in a step, from 1."""
        for name, loss in losses.items():
            if spike := self.rules[name].see(loss):
                self._tell(step, name, spike)

    def _tell(self, last: int, name: str, spike: Spike) -> None:
        steps = range(last - len(spike.losses) + 1, last + 1)
        rows = {step: list(dict.fromkeys(self.rows_of(step))) for step in steps}
        numbers = ", ".join(f"{loss:.4g}" for loss in spike.losses)
        usual = f"{spike.mean:.4g}, give or take {spike.deviation:.2g}"
        what = f"{name} was {numbers} in steps {steps[0]} to {last}; in the {WINDOW} steps before, {usual}"
        read = "; ".join(f"step {step} read {_shortened(names)}" for step, names in rows.items())
        say(str(Problem(str(self.run.path), what, f"{read}\n    look at these rows (spikes.jsonl has all)")))
        self.run.spikes.append([{"step": last, "loss": name, **spike._asdict(), "rows": rows}])


def _shortened(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(islice(names, NAMED)) + (f" and {rest} more" if rest > 0 else "")
