"""Ready rows on disk: 4 bytes a number in one mapped file, and some 32 bytes a row in memory."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Sequence
from typing import IO, Generic, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from aligner.data.costs import Costs, Places, RowCost
from aligner.data.spool import put_aside

PENDING_NUMBERS = 1 << 18  # that wait to be written together

T = TypeVar("T")
Numbers = NDArray[np.int32]


class NumberFile:
    """Numbers of 4 bytes, appended to a temporary file that has no name; or those that lie in `mapped` already."""

    def __init__(self, mapped: Numbers | None = None) -> None:
        self._file: IO[bytes] | None = None
        self._pending = array("i")
        self._mapped: Numbers = np.zeros(0, np.int32) if mapped is None else mapped

    def extend(self, numbers: array[int] | Numbers) -> int:
        """Put these behind the others; how many there are then."""
        self._pending.frombytes(numbers.tobytes())
        if len(self._pending) >= PENDING_NUMBERS:
            self._write()
        return len(self._mapped) + len(self._pending)

    @property
    def mapped(self) -> Numbers:
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
        self._mapped = np.asarray(np.memmap(self._file, dtype=np.int32, mode="r"))


class Names(Sequence[str]):
    """Names, few of them different, appended one by one: 4 bytes each."""

    def __init__(self, places: array[int] | Numbers | None = None, different: Iterable[str] = ()) -> None:
        self.places: array[int] | Numbers = array("i") if places is None else places
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


class RowStore(Generic[T]):
    """Rows, appended one by one, in a temporary file that has no name; or those of a file that was kept.

    Of each row: the numbers that it is packed into, which end at `ends`, a name, and what it costs. What the rows of
    one kind are packed into, a store of that kind says.
    """

    def __init__(self) -> None:
        self.ends: array[int] | Places = array("q")
        self.names, self.costs = Names(), Costs()
        self._file = NumberFile()

    @classmethod
    def of(cls, numbers: Numbers, ends: Places, names: Names, costs: Costs) -> Self:
        """A store of rows that lie in `numbers` end to end."""
        store = cls()
        store.ends, store.names, store.costs, store._file = ends, names, costs, NumberFile(numbers)
        return store

    def packed(self, row: T) -> tuple[str, array[int] | Numbers]:
        """A row's name and its numbers."""
        raise NotImplementedError

    def unpacked(self, name: str, numbers: Numbers, cost: RowCost) -> T:
        """The row that was packed so."""
        raise NotImplementedError

    @property
    def whole(self) -> bool:
        """Whether the numbers say all of every row, so that they can be kept."""
        return True

    def append(self, row: T, cost: RowCost) -> None:
        """Put a row behind the others; `cost` is its own."""
        name, numbers = self.packed(row)
        self.ends.append(self._file.extend(numbers))
        self.names.append(name)
        self.costs.append(cost)

    def picked(self, places: Places) -> StoredRows[T]:
        """The rows at these places, in this order."""
        return StoredRows(self, places)

    def row(self, place: int) -> T:
        """One row."""
        numbers = self.numbers[self.ends[place - 1] if place else 0 : self.ends[place]]
        return self.unpacked(self.names[place], numbers, self.costs[place])

    @property
    def numbers(self) -> Numbers:
        """Those of all rows, mapped from the file."""
        return self._file.mapped


class StoredRows(Sequence[T]):
    """Rows of a store, each read when it is asked for; `places`: which of them, in order."""

    def __init__(self, store: RowStore[T], places: Places) -> None:
        self.store, self.places = store, places

    @property
    def sizes(self) -> list[int]:
        """How many numbers each row takes: of conversations one a token."""
        ends = np.concatenate([[0], self.store.ends])
        sizes: list[int] = (ends[self.places + 1] - ends[self.places]).tolist()
        return sizes

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
