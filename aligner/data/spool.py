"""Rows in order, nearly all of them on disk: a million take the memory of some hundred."""

from __future__ import annotations

import pickle
import sys
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TypeVar, overload

from aligner.errors import Problem, StorageError

T = TypeVar("T")

CHUNK_ROWS = 500  # written and read together


@contextmanager
def put_aside() -> Iterator[None]:
    """StorageError where the disk of temporary files does not take rows."""
    try:
        yield
    except OSError as error:
        what = f"rows that are prepared cannot be put aside there ({error.strerror or error})"
        remedy = "make room, or set TMPDIR to a folder on a larger disk"
        raise StorageError(Problem(tempfile.gettempdir(), what, remedy)) from error


class Spool(Sequence[T]):
    """Items in order, appended one by one; whole chunks of them lie pickled in a temporary file that has no name.

    Each reading gives new objects, equal to those that were appended. The file is where TMPDIR says and goes with the
    last spool that reads it. on_disk: False keeps all of them in memory, where items must stay the same objects.
    """

    def __init__(self, items: Iterable[T] = (), *, on_disk: bool = True) -> None:
        self._chunk_rows = CHUNK_ROWS if on_disk else sys.maxsize
        self._file: IO[bytes] | None = None
        self._starts = array("q")  # of the chunks in the file
        self._tail: list[T] = []
        self._loaded: tuple[int, list[T]] = (-1, [])
        self._numbers = array("I")  # of the items that are here, among all that were appended
        for item in items:
            self.append(item)

    def append(self, item: T) -> None:
        """Put an item behind the others."""
        self._numbers.append(len(self._starts) * self._chunk_rows + len(self._tail))
        self._tail.append(item)
        if len(self._tail) == self._chunk_rows:
            self._write(self._tail)
            self._tail = []

    def picked(self, places: Iterable[int]) -> Spool[T]:
        """The items at these places, in this order; nothing is copied but their numbers."""
        other: Spool[T] = Spool.__new__(type(self))
        vars(other).update(vars(self))
        other._numbers = array("I", (self._numbers[place] for place in places))
        return other

    def _write(self, items: list[T]) -> None:
        with put_aside():
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="aligner-rows-")  # noqa: SIM115 - open as long as it is read
            self._starts.append(self._file.seek(0, 2))
            pickle.dump(items, self._file, protocol=pickle.HIGHEST_PROTOCOL)
            self._file.flush()

    def _at(self, number: int) -> T:
        chunk, place = divmod(number, self._chunk_rows)
        if chunk == len(self._starts):
            return self._tail[place]
        if self._loaded[0] != chunk:
            assert self._file is not None, "a chunk was written"
            self._file.seek(self._starts[chunk])
            self._loaded = chunk, pickle.load(self._file)
        return self._loaded[1][place]

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[T]:
        return map(self._at, self._numbers)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._at(number) for number in self._numbers[index]]
        return self._at(self._numbers[index])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]
