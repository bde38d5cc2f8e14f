"""Ready rows on disk: 4 bytes a token in one mapped file, and some 50 bytes a row in memory."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Sequence
from typing import IO, overload

import numpy as np
from numpy.typing import NDArray

from aligner.data.costs import Costs, RowCost
from aligner.data.tokens import TokenRow

PENDING_TOKENS = 1 << 18  # that wait to be written together

Words = NDArray[np.int32]  # of each token 2 x its id, and 1 more where it is supervised
Places = NDArray[np.int64]


class TokenRows(Sequence[TokenRow]):
    """Rows of a `TokenStore`, each read when it is asked for; `places`: which of them, in order."""

    def __init__(self, store: TokenStore, places: Places) -> None:
        self.store, self.places = store, places

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        ends = np.concatenate([[0], self.store.ends])
        lengths: list[int] = (ends[self.places + 1] - ends[self.places]).tolist()
        return lengths

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> TokenRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenRow]: ...
    def __getitem__(self, index: int | slice) -> TokenRow | list[TokenRow]:
        if isinstance(index, slice):
            return [self.store.row(place) for place in self.places[index].tolist()]
        return self.store.row(int(self.places[index]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class TokenStore:
    """Rows, appended one by one, in a temporary file that has no name; or those of a file that was kept.

    ends: where each row ends, in tokens. families: the place of its family's name in `names`.
    """

    def __init__(self) -> None:
        self.ends, self.families, self.costs = array("q"), array("i"), Costs()
        self.names: list[str] = []
        self._families: dict[str, int] = {}
        self._file: IO[bytes] | None = None
        self._pending = array("i")
        self._written: Words = np.zeros(0, np.int32)

    @classmethod
    def of(
        cls, words: Words, ends: array[int], families: array[int], names: list[str], costs: Costs
    ) -> TokenStore:
        """A store of rows that lie in `words` end to end."""
        store = cls()
        store.ends, store.families, store.names, store.costs = ends, families, names, costs
        store._written = words
        return store

    def append(self, row: TokenRow, cost: RowCost) -> None:
        """Put a row behind the others; `cost` is its own."""
        if row.family not in self._families:
            self._families[row.family] = len(self.names)
            self.names.append(row.family)
        words = 2 * np.array(row.input_ids, dtype=np.int32) + np.array(row.supervised, dtype=np.int32)
        self._pending.frombytes(words.tobytes())
        self.ends.append((self.ends[-1] if self.ends else 0) + len(words))
        self.families.append(self._families[row.family])
        self.costs.append(cost)
        if len(self._pending) >= PENDING_TOKENS:
            self._write()

    def picked(self, places: Places) -> TokenRows:
        """The rows at these places, in this order."""
        return TokenRows(self, places)

    def row(self, place: int) -> TokenRow:
        """One row."""
        words = self.words[self.ends[place - 1] if place else 0 : self.ends[place]]
        cost = self.costs[place]
        return TokenRow(
            (words >> 1).tolist(),
            (words & 1).astype(bool).tolist(),
            self.names[self.families[place]],
            cost.prompt_cut,
            cost.answer_cut,
            cost.rewritten,
            cost.template,
            cost.shots,
        )

    @property
    def words(self) -> Words:
        """All tokens of all rows, mapped from the file."""
        if self._pending:
            self._write()
        return self._written

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="aligner-tokens-")  # noqa: SIM115 - open as long as it is read
        self._file.seek(0, 2)
        self._pending.tofile(self._file)
        self._file.flush()
        self._pending = array("i")
        self._written = np.memmap(self._file, dtype=np.int32, mode="r")


def lengths_of(rows: Sequence[TokenRow]) -> list[int]:
    """Tokens of each row; of rows on disk none is read for it."""
    return rows.lengths if isinstance(rows, TokenRows) else [len(row.input_ids) for row in rows]
