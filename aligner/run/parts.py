"""Results of a stage's finished parts, kept so that an interrupted stage does not measure them again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aligner.run.metrics import check_finite
from aligner.run.write import write_json

PARTS = "parts.json"


class Parts:
    """Numbers by part, in one file of a folder; they hold only for what they were measured on."""

    def __init__(self, folder: Path, *, measured_on: Mapping[str, Any]) -> None:
        """Read what a session before this one finished; parts measured on anything else are dropped."""
        self._path = folder / PARTS
        self._measured_on = json.loads(json.dumps(measured_on))
        self._found: dict[str, dict[str, float]] = {}
        if self._path.exists():
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            self._found = kept["parts"] if kept["measured_on"] == self._measured_on else {}

    def __len__(self) -> int:
        return len(self._found)

    def result(self, name: str, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The numbers of a part: measured and written down now, or as an earlier session did.

        Raises TrainingError for one that is not finite.
        """
        if name not in self._found:
            found = measure()
            check_finite(found, where=name)
            self._found[name] = found
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, {"measured_on": self._measured_on, "parts": self._found})
        return self._found[name]
