"""Format `rankings`: {"prompt", "answers": [best first]} rows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from aligner.data.readers.pairs import pair_row
from aligner.data.readers.records import Record, fault
from aligner.data.rows import Dropped, Pair


def read_rankings(record: Record) -> Iterator[Pair | Dropped]:
    """All k(k-1)/2 pairs of a ranking of k answers (InstructGPT, arXiv:2203.02155, section 3.5)."""
    answers = record.texts("answers")
    if len(answers) < 2:
        raise fault(
            record.origin, f'"answers" has {len(answers)} entries', "rank at least two answers, best first"
        )
    prompt, kind = record.prompt(), record.text("kind", default="")
    for better, worse in combinations(answers, 2):
        yield pair_row(record.origin, prompt, better, worse, margin=None, kind=kind)
