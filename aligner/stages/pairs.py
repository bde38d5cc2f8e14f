"""Pairs of answers as stages train on them and measure them: columns, reference log-likelihoods, accuracy."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import overload

from torch import Tensor

from aligner.data.tokens import PairRow
from aligner.evals.preference import (
    Accuracy,
    accuracy_by_kind,
    calibration_error,
    pair_accuracy,
    prompts_of,
)
from aligner.stages.batches import PairColumns


def pair_length(pair: PairRow) -> int:
    """Tokens of the longer answer and the prompt: what a pair takes of a padded batch, twice."""
    return max(len(pair.chosen_ids), len(pair.rejected_ids))


class WeighedColumns(Sequence[PairColumns]):
    """The pairs in columns, each made when it is asked for; weights scaled to a mean of 1.

    So a step's loss stays comparable, and the learning rate. Pairs that weigh the same have no column of weights; they
    train as ever, bit by bit. nats_P2: the column `reference`, where there is one.
    """

    def __init__(self, pairs: Sequence[PairRow], nats_P2: Tensor | None = None) -> None:
        self._pairs, self._nats_P2 = pairs, nats_P2
        self._margins, weights = False, array("d")
        for pair in pairs:
            self._margins |= pair.margin is not None
            weights.append(pair.weight)
        self._mean = math.fsum(weights) / len(weights) if len(set(weights)) > 1 else None

    def __len__(self) -> int:
        return len(self._pairs)

    @overload
    def __getitem__(self, index: int) -> PairColumns: ...
    @overload
    def __getitem__(self, index: slice) -> list[PairColumns]: ...
    def __getitem__(self, index: int | slice) -> PairColumns | list[PairColumns]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        pair = self._pairs[index]
        row = columns(pair, with_margin=self._margins)
        if self._mean is not None:
            row["weight"] = pair.weight / self._mean
        if self._nats_P2 is not None:
            row["reference"] = self._nats_P2[index].tolist()
        return row


def columns(pair: PairRow, *, with_margin: bool) -> PairColumns:
    """A pair in TRL's columns; a pair without a margin among others has margin 0."""
    row: PairColumns = {
        "chosen_ids": list(pair.chosen_ids),
        "rejected_ids": list(pair.rejected_ids),
        "prompt_length": pair.prompt_length,
    }
    if with_margin:
        row["margin"] = pair.margin or 0.0
    return row


def holdout_metrics(gaps: Sequence[float]) -> dict[str, float]:
    """What metrics.jsonl says of the hold-out."""
    return {
        "holdout/accuracy_share": pair_accuracy(gaps).share,
        "holdout/margin_mean": sum(gaps) / len(gaps),
    }


def holdout_results(
    pairs: Sequence[PairRow], gaps: Sequence[float], *, area: str = "reward"
) -> dict[str, float]:
    """Pooled accuracy with its 95 % interval, over all pairs and by kind, and calibration; empty without pairs.

    `area` stands before the names: the stage that was measured.
    """
    if not pairs:
        return {}
    kinds, prompts = [pair.kind for pair in pairs], prompts_of(pairs)
    found: dict[str, Accuracy] = {"": pair_accuracy(gaps, prompts)}
    found |= {f"[{kind}]": one for kind, one in accuracy_by_kind(gaps, kinds, prompts).items()}
    results: dict[str, float] = {}
    for where, accuracy in found.items():
        results[f"{area}/accuracy_share{where}"] = accuracy.share
        results[f"{area}/accuracy_low_share{where}"] = accuracy.low
        results[f"{area}/accuracy_high_share{where}"] = accuracy.high
    return results | {f"{area}/calibration_error_share": calibration_error(gaps)}
