"""All that a page, or a sentence, says of a stage: read from its folder, JSON the stages wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligner.errors import Problem, RunError
from aligner.run.folder import read_results
from aligner.run.lines import JsonLines, JsonRow
from aligner.run.manifest import Manifest, run_meant
from aligner.run.numbers import MISSING, duration, number
from aligner.run.report_sources import ReadLine, SourceLine, read_line, source_line, sources_in


@dataclass(frozen=True)
class StageFacts:
    """All a page says of one stage; read from its folder."""

    name: str
    manifest: Manifest
    metrics: list[JsonRow]
    results: dict[str, float]
    samples: list[JsonRow]

    @property
    def steps(self) -> str:
        """Number of the last logged step, or a dash."""
        return number(self.metrics[-1]["step"]) if self.metrics else MISSING

    @property
    def time(self) -> str:
        """Wall-clock time; of a killed run what its metrics know."""
        last = self.metrics[-1]["seconds"] if self.metrics else 0.0
        return duration(max(self.manifest.seconds, last))

    @property
    def sources(self) -> list[SourceLine]:
        """The data it read, wherever in the data report a source stands."""
        return [source_line(part, source) for part, source in sources_in(self.manifest.data)]

    @property
    def read(self) -> list[ReadLine]:
        """What the whole training reads of each source; [] for stages that do not plan it."""
        return [read_line(source) for source in self.manifest.sources]

    @property
    def trained_rows(self) -> str:
        """Rows that are trained on, of all sources."""
        return _rows(
            self.manifest.data, lambda part: part.removeprefix("pairs ").startswith(("train", "curriculum"))
        )

    @property
    def rows_used(self) -> str:
        """Rows used of all sources, those held out or watched aside."""
        return _rows(self.manifest.data, lambda part: "holdout" not in part and not part.startswith("watch"))


def _rows(report: Any, counts: Callable[[str], bool]) -> str:
    used = [source["rows_used"] for part, source in sources_in(report) if counts(part)]
    return number(sum(used)) if used else MISSING


def read_stages(folder: Path) -> list[StageFacts]:
    """The stages whose facts lie here: the folder's own, or its children's in the pipeline's order."""
    children = sorted(child.parent for child in folder.glob("*/manifest.json")) if folder.is_dir() else []
    if children:
        stages = [read_stage(child) for child in children]
        planned = places_of_stages(folder)
        return sorted(
            stages, key=lambda s: (planned.get(s.name, len(planned)), s.manifest.started or "9", s.name)
        )
    if not (folder / "manifest.json").exists():
        raise RunError(Problem(str(folder), "no run here to report on (no manifest.json)", run_meant(folder)))
    return [read_stage(folder)]


def read_stage(folder: Path) -> StageFacts:
    """The facts of one stage folder."""
    return StageFacts(
        name=folder.resolve().name,
        manifest=Manifest.read(folder),
        metrics=JsonLines(folder / "metrics.jsonl").rows(),
        results=read_results(folder),
        samples=JsonLines(folder / "samples.jsonl").rows(),
    )


def places_of_stages(folder: Path) -> dict[str, int]:
    """Place of each stage in the pipeline's recipe; {} where the folder only happens to hold runs."""
    if not (folder / "manifest.json").exists():
        return {}
    stages = Manifest.read(folder).recipe.get("stages") or {}
    return {name: place for place, name in enumerate(stages)}
