"""Conversations as ids, on disk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aligner.data.costs import RowCost
from aligner.data.row_store import Numbers, RowStore, StoredRows
from aligner.data.tokens import TokenRow


class TokenStore(RowStore[TokenRow]):
    """Conversations: of each token 2 x its id, and 1 more where it is supervised."""

    def packed(self, row: TokenRow) -> tuple[str, Numbers]:
        """The family, and the tokens."""
        numbers = 2 * np.array(row.input_ids, dtype=np.int32) + np.array(row.supervised, dtype=np.int32)
        return row.family, numbers

    def unpacked(self, name: str, numbers: Numbers, cost: RowCost) -> TokenRow:
        """The row that was packed so."""
        return TokenRow(
            (numbers >> 1).tolist(),
            (numbers & 1).astype(bool).tolist(),
            name,
            cost.prompt_cut,
            cost.answer_cut,
            cost.rewritten,
            cost.template,
            cost.shots,
        )


def lengths_of(rows: Sequence[TokenRow]) -> list[int]:
    """Tokens of each row; of rows on disk none is read for it."""
    return rows.sizes if isinstance(rows, StoredRows) else [len(row.input_ids) for row in rows]
