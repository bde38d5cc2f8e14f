"""The perplexity filter (CCNet, Wenzek et al. 2019, arXiv:1911.00359, 3.2): rows too hard or too easy to guess go.

No model is asked here. The stage `perplexity` asks one, and writes bits per byte beside a hash of each text; bits per
byte, not perplexity, since that of two tokenizers cannot be compared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from aligner.data.rows import Origin, Row, row_contents
from aligner.errors import DataError, Problem, at
from aligner.recipe.clean import PerplexitySpec

SCORES_FILE = "scores.jsonl"
MAX_TOLD = 3  # rows without a score that are told one by one


class Bounds(NamedTuple):
    """The least and the most bits per byte that a row may have."""

    low: float
    high: float


def measured_text(row: Row) -> str:
    """What of a row is measured: all its contents as one text, as the other filters judge them."""
    return "\n".join(row_contents(row))


def text_key(text: str) -> str:
    """32 hex digits that say which text a score is of."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def scores_file(path: str) -> Path:
    """The file of a run of the stage `perplexity`, or the file itself. DataError where there is none."""
    named = Path(path).expanduser()
    file = named / SCORES_FILE if named.is_dir() else named
    if not file.is_file():
        remedy = "measure the rows first: aligner perplexity RECIPE"
        raise DataError(Problem("data.clean.perplexity.scores", f"no scores at {file}", remedy))
    return file


def read_scores(file: Path) -> dict[str, float]:
    """Bits per byte by `text_key`. DataError with file and line for what is no score, or where there is none."""
    scores: dict[str, float] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
            scores[str(row["text"])] = float(row["bits_per_byte"])
        except (ValueError, TypeError, KeyError) as error:
            problem = Problem(at(file, number), "no score of a text", "run the stage perplexity again")
            raise DataError(problem) from error
    if not scores:
        raise DataError(Problem(at(file), "there are no scores", "run the stage perplexity to its end"))
    return scores


def bounds_of(spec: PerplexitySpec, scores: dict[str, float]) -> Bounds:
    """The recipe's bounds; where it gives shares of all scores as well, the narrower ones."""
    low, high = spec.min_bits_per_byte or 0.0, spec.max_bits_per_byte or float("inf")
    if spec.quantiles:
        ordered = sorted(scores.values())
        low = max(low, quantile(ordered, spec.quantiles[0]))
        high = min(high, quantile(ordered, spec.quantiles[1]))
    return Bounds(low, high)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of ascending values lies, interpolated between two neighbours.

    By hand: .25 of 1, 2, 4, 8 lies at position .75 of 0..3 -> 1 + .75 x (2 - 1) = 1.75.
    """
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


class PerplexityFilter:
    """Judges rows by their scores, and notes those that have none."""

    def __init__(self, spec: PerplexitySpec) -> None:
        """Read the scores; DataError as `read_scores`."""
        self._file = scores_file(spec.scores)
        self._scores = read_scores(self._file)
        self.bounds = bounds_of(spec, self._scores)
        self._unmeasured: list[Origin] = []

    def reason_against(self, row: Row) -> str | None:
        """`low_perplexity`, `high_perplexity` or None; a row without text has none of either."""
        text = measured_text(row)
        if not text:
            return None
        bits = self._scores.get(text_key(text))
        if bits is None:
            self._unmeasured.append(row.origin)
            return None
        if bits < self.bounds.low:
            return "low_perplexity"
        return "high_perplexity" if bits > self.bounds.high else None

    def check(self) -> None:
        """DataError where rows were judged that have no score: the first few, and how many there are."""
        if not self._unmeasured:
            return
        remedy = (
            "name its file in the perplexity recipe, with the same kind and format, and run that with --fresh"
        )
        what = f"this row has no score in {self._file}"
        told = [Problem(str(origin), what, remedy) for origin in self._unmeasured[:MAX_TOLD]]
        if len(self._unmeasured) > MAX_TOLD:
            told.append(Problem(str(self._file), f"{len(self._unmeasured):,} rows have no score here"))
        raise DataError(told)
