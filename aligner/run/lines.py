"""JSON lines of a run: append-only while it goes well, cut back to the checkpoint when it is resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aligner.errors import Problem, RunError, at
from aligner.run.write import append_lines, write_text

JsonRow = dict[str, Any]


class JsonLines:
    """A file of JSON objects, one a line; "step" in a row says which step it belongs to.

    Without `writes` nothing is written: another process does.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self.writes = writes

    def append(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Add rows, durable when this returns; ValueError for NaN or infinity."""
        if rows and self.writes:
            append_lines(self.path, [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows])

    def rows(self) -> list[JsonRow]:
        """All rows. A torn last line (a kill while it was written) is no row; any other bad line is a RunError."""
        if not self.path.exists():
            return []
        *lines, _ = self.path.read_bytes().split(b"\n")
        return [self._parse(line, number) for number, line in enumerate(lines, 1) if line.strip()]

    def cut_back(self, step: int) -> None:
        """Drop the rows after `step`: a resumed run writes them again. -1 drops all rows that have a step."""
        if not self.writes or not self.path.exists():
            return
        kept = [row for row in self.rows() if row.get("step", -1) <= step]
        write_text(self.path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))

    def keep_first(self, count: int) -> None:
        """Drop every row after the first `count`."""
        if self.writes and self.path.exists():
            kept = self.rows()[:count]
            write_text(self.path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))

    def clear(self) -> None:
        """Drop every row."""
        if self.writes:
            self.path.unlink(missing_ok=True)

    def _parse(self, line: bytes, number: int) -> JsonRow:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RunError(
                Problem(
                    at(self.path, number),
                    f"not a row of JSON ({error})",
                    "mend or remove the line, or start with --fresh",
                )
            ) from error
        if not isinstance(row, dict):
            raise RunError(Problem(at(self.path, number), "not a JSON object", "mend or remove the line"))
        return row
