"""Format `rankings`: {"prompt", "answers": [best first]} rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import isclose

from aligner.data.readers.pairs import pair_row
from aligner.data.readers.records import Record, fault
from aligner.data.rows import Dropped, Origin, Pair, Turn


def read_rankings(record: Record) -> Iterator[Pair | Dropped]:
    """All k(k-1)/2 pairs of a ranking of k answers (InstructGPT, arXiv:2203.02155, section 3.5)."""
    answers = record.texts("answers")
    check_rankable(record, "answers", answers)
    yield from ranked_pairs(record.origin, record.prompt(), answers, kind=record.text("kind", default=""))


def check_rankable(record: Record, key: str, answers: Sequence[object]) -> None:
    """Raise `DataError` where there are not two answers to compare."""
    if len(answers) < 2:
        what = f'"{key}" has {len(answers)} entries'
        raise fault(record.origin, what, "rank at least two answers, best first")


def ranked_pairs(
    origin: Origin, prompt: tuple[Turn, ...], answers: Sequence[str], *, kind: str
) -> Iterator[Pair | Dropped]:
    """Every answer, best first, against every one behind it."""
    for better, worse in combinations(answers, 2):
        yield pair_row(origin, prompt, better, worse, margin=None, kind=kind)


def scored_pairs(
    origin: Origin, prompt: tuple[Turn, ...], answers: Sequence[tuple[str, float]], *, kind: str
) -> Iterator[Pair | Dropped]:
    """All pairs of answers with scores, the higher one chosen; two that score the same are a `tie`."""
    for (one, score), (other, other_score) in combinations(answers, 2):
        if isclose(score, other_score, abs_tol=1e-9):  # 0.1 x 3 and 0.3 x 1 are the same rating
            yield Dropped(origin, "tie")
        else:
            chosen, rejected = (one, other) if score > other_score else (other, one)
            yield pair_row(origin, prompt, chosen, rejected, margin=None, kind=kind)
