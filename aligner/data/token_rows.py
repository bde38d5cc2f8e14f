"""Ready rows on disk: 4 bytes a token in one mapped file, and some 50 bytes a row in memory."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Sequence
from typing import IO, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from aligner.data.costs import Costs, RowCost
from aligner.data.spool import put_aside
from aligner.data.tokens import TokenRow

PENDING_TOKENS = 1 << 18  # that wait to be written together

T = TypeVar("T")
Words = NDArray[np.int32]  # of each token 2 x its id, and 1 more where it is supervised
Places = NDArray[np.int64]


class Store(Protocol[T]):
    """Where rows lie one behind the other."""

    def row(self, place: int, /) -> T:
        """One row."""


class StoredRows(Sequence[T]):
    """Rows of a store, each read when it is asked for; `places`: which of them, in order."""

    def __init__(self, store: Store[T], places: Places) -> None:
        self.store, self.places = store, places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self.store.row(place) for place in self.places[index].tolist()]
        return self.store.row(int(self.places[index]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class TokenRows(StoredRows[TokenRow]):
    """Rows of a `TokenStore`."""

    store: TokenStore

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        ends = np.concatenate([[0], self.store.ends])
        lengths: list[int] = (ends[self.places + 1] - ends[self.places]).tolist()
        return lengths


class TokenFile:
    """Numbers of 4 bytes, appended to a temporary file that has no name; or those that lie in `mapped` already."""

    def __init__(self, mapped: Words | None = None) -> None:
        self._file: IO[bytes] | None = None
        self._pending = array("i")
        self._mapped: Words = np.zeros(0, np.int32) if mapped is None else mapped

    def extend(self, words: array[int] | Words) -> int:
        """Put these behind the others; how many there are then."""
        self._pending.frombytes(words.tobytes())
        if len(self._pending) >= PENDING_TOKENS:
            self._write()
        return len(self._mapped) + len(self._pending)

    @property
    def mapped(self) -> Words:
        """All of them, mapped from the file."""
        if self._pending:
            self._write()
        return self._mapped

    def _write(self) -> None:
        with put_aside():
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="aligner-tokens-")  # noqa: SIM115 - open as long as it is read
            self._file.seek(0, 2)
            self._pending.tofile(self._file)
            self._file.flush()
        self._pending = array("i")
        self._mapped = np.memmap(self._file, dtype=np.int32, mode="r")


class Names(Sequence[str]):
    """Names, few of them different, appended one by one: 4 bytes each."""

    def __init__(self, places: array[int] | None = None, different: Iterable[str] = ()) -> None:
        self.places = array("i") if places is None else places
        self.different = list(different)
        self._place_of = {name: place for place, name in enumerate(self.different)}

    def append(self, name: str) -> None:
        """Put a name behind the others."""
        if name not in self._place_of:
            self._place_of[name] = len(self.different)
            self.different.append(name)
        self.places.append(self._place_of[name])

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self.different[place] for place in self.places[index]]
        return self.different[self.places[index]]


class TokenStore:
    """Rows, appended one by one, in a temporary file that has no name; or those of a file that was kept.

    ends: where each row ends, in tokens.
    """

    def __init__(self) -> None:
        self.ends, self.families, self.costs = array("q"), Names(), Costs()
        self._tokens = TokenFile()

    @classmethod
    def of(cls, words: Words, ends: array[int], families: Names, costs: Costs) -> TokenStore:
        """A store of rows that lie in `words` end to end."""
        store = cls()
        store.ends, store.families, store.costs, store._tokens = ends, families, costs, TokenFile(words)
        return store

    def append(self, row: TokenRow, cost: RowCost) -> None:
        """Put a row behind the others; `cost` is its own."""
        words = 2 * np.array(row.input_ids, dtype=np.int32) + np.array(row.supervised, dtype=np.int32)
        self.ends.append(self._tokens.extend(words))
        self.families.append(row.family)
        self.costs.append(cost)

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
            self.families[place],
            cost.prompt_cut,
            cost.answer_cut,
            cost.rewritten,
            cost.template,
            cost.shots,
        )

    @property
    def words(self) -> Words:
        """All tokens of all rows, mapped from the file."""
        return self._tokens.mapped


def lengths_of(rows: Sequence[TokenRow]) -> list[int]:
    """Tokens of each row; of rows on disk none is read for it."""
    return rows.lengths if isinstance(rows, TokenRows) else [len(row.input_ids) for row in rows]
