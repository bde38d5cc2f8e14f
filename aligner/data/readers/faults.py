"""Rows of a source that cannot be read: told as one error, or left out where the recipe allows so many."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from aligner.data.readers.records import RowError
from aligner.data.rows import BAD_ROW, Dropped
from aligner.errors import DataError, Problem

MAX_FAULTS = 3  # malformed rows of a source that are told one by one


@dataclass
class Faults:
    """The malformed rows of a source: how many, what is wrong with the first few, and the `allowed` ones."""

    allowed: int = 0
    count: int = 0
    told: list[Problem] = field(default_factory=list)
    left_out: list[Dropped] = field(default_factory=list)

    def note(self, error: DataError) -> None:
        """Count one. The errors themselves are not kept: each holds its row, and there may be millions."""
        self.count += 1
        if self.count <= MAX_FAULTS:
            self.told += error.problems
        if isinstance(error, RowError) and len(self.left_out) < self.allowed:
            self.left_out.append(Dropped(error.origin, BAD_ROW, error.what))

    def settled(self, path: str, readable: int) -> list[Dropped]:
        """The rows to leave out; `DataError` where there are more than are allowed. `readable`: the other rows."""
        if len(self.left_out) == self.count:
            return self.left_out
        if self.count > MAX_FAULTS:
            what = f"{self.count:,} rows cannot be read, the first {MAX_FAULTS} as told; {readable:,} can"
            self.told.append(Problem(path, what, "mend or delete them, or name another format"))
        if readable:
            offer = f"; or leave out such rows with skip_bad_rows: {self.count} in this source"
            self.told[-1] = replace(self.told[-1], remedy=self.told[-1].remedy + offer)
        raise DataError(self.told)
