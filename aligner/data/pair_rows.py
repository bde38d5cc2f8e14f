"""Ready pairs on disk: 4 bytes a token in one mapped file, and some 60 bytes a pair in memory."""

from __future__ import annotations

from array import array
from math import isnan, nan

from aligner.data.costs import Costs, RowCost
from aligner.data.token_rows import Names, Places, StoredRows, TokenFile
from aligner.data.tokens import PairRow


class PairStore:
    """Pairs, appended one by one, in a temporary file that has no name."""

    def __init__(self) -> None:
        self.costs, self._kinds = Costs(), Names()
        self._tokens = TokenFile()
        self._ends = array("q", [0])  # of the ids of each answer behind its prompt, chosen first
        self._prompt_lengths = array("i")
        self._margins, self._weights = array("d"), array("d")  # a margin that is no number: there is none

    def append(self, pair: PairRow, cost: RowCost) -> None:
        """Put a pair behind the others; `cost` is its own."""
        for ids in (pair.chosen_ids, pair.rejected_ids):
            self._ends.append(self._tokens.extend(array("i", ids)))
        self._kinds.append(pair.kind)
        self._prompt_lengths.append(pair.prompt_length)
        self._margins.append(nan if pair.margin is None else pair.margin)
        self._weights.append(pair.weight)
        self.costs.append(cost)

    def picked(self, places: Places) -> StoredRows[PairRow]:
        """The pairs at these places, in this order."""
        return StoredRows(self, places)

    def row(self, place: int) -> PairRow:
        """One pair."""
        start, middle, end = self._ends[2 * place : 2 * place + 3]
        tokens, cost, margin = self._tokens.mapped, self.costs[place], self._margins[place]
        return PairRow(
            tokens[start:middle].tolist(),
            tokens[middle:end].tolist(),
            None if isnan(margin) else margin,
            self._kinds[place],
            self._prompt_lengths[place],
            cost.prompt_cut,
            cost.answer_cut,
            self._weights[place],
        )
