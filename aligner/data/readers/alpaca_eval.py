"""Format `alpaca_eval`: {"instruction", "output_1", "output_2", "preference"} rows of AlpacaEval (arXiv:2404.04475)."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.alpaca import instruction_turn
from aligner.data.readers.pairs import pair_row
from aligner.data.readers.records import Record, fault
from aligner.data.rows import Dropped, Pair

_NO_CHOICE = (0.0, 1.5)


def read_alpaca_eval(record: Record) -> Iterator[Pair | Dropped]:
    """One pair a row: a preference under 1.5 is for output_1, one over it for output_2.

    0 and 1.5 say that neither is better: `tie`. null says that the annotator gave no answer: `no_preference`.
    """
    question = instruction_turn(record.origin, record.text("instruction"), "")
    outputs, preference = (record.text("output_1"), record.text("output_2")), record.number("preference")
    if preference is None:
        yield Dropped(record.origin, "no_preference")
    elif preference in _NO_CHOICE:
        yield Dropped(record.origin, "tie")
    elif not 1 <= preference <= 2:
        what = f'"preference" is {preference:g}'
        raise fault(record.origin, what, "valid: 1 to 2 (1.5 for a tie), 0 for a tie, or null")
    else:
        chosen, rejected = outputs if preference < 1.5 else outputs[::-1]
        kind = record.text("kind", default="")
        yield pair_row(record.origin, (question,), chosen, rejected, margin=None, kind=kind)
