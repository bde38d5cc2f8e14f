"""Preference pairs as ids, on disk."""

from __future__ import annotations

from array import array
from math import isnan, nan
from struct import Struct

from aligner.data.costs import RowCost
from aligner.data.row_store import Numbers, RowStore
from aligner.data.tokens import PairRow

HEAD = Struct("<ddii")  # margin (no number: there is none), weight, ids of the prompt, ids of the chosen side
HEAD_NUMBERS = HEAD.size // 4


class PairStore(RowStore[PairRow]):
    """Pairs: a head, then the ids of the chosen side and of the rejected one, each behind the prompt's."""

    def packed(self, row: PairRow) -> tuple[str, array[int]]:
        """The kind, and the numbers."""
        margin = nan if row.margin is None else row.margin
        numbers = array("i", HEAD.pack(margin, row.weight, row.prompt_length, len(row.chosen_ids)))
        numbers.extend(row.chosen_ids)
        numbers.extend(row.rejected_ids)
        return row.kind, numbers

    def unpacked(self, name: str, numbers: Numbers, cost: RowCost) -> PairRow:
        """The pair that was packed so."""
        margin, weight, prompt_length, chosen = HEAD.unpack(numbers[:HEAD_NUMBERS].tobytes())
        ids: list[int] = numbers[HEAD_NUMBERS:].tolist()
        return PairRow(
            ids[:chosen],
            ids[chosen:],
            None if isnan(margin) else margin,
            name,
            prompt_length,
            cost.prompt_cut,
            cost.answer_cut,
            weight,
        )
