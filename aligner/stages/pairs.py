"""Pairs of answers as stages train on them and measure them: columns, reference log-likelihoods, accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def weighed_columns(pairs: Sequence[PairRow]) -> list[PairColumns]:
    """The pairs in columns, their weights scaled to a mean of 1: a step's loss stays comparable, and the learning rate.

    Pairs that weigh the same have no column of weights; they train as ever, bit by bit.
    """
    margins = any(pair.margin is not None for pair in pairs)
    rows = [columns(pair, with_margin=margins) for pair in pairs]
    if len({pair.weight for pair in pairs}) > 1:
        mean = math.fsum(pair.weight for pair in pairs) / len(pairs)
        for row, pair in zip(rows, pairs, strict=True):
            row["weight"] = pair.weight / mean
    return rows


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
