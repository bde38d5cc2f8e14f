"""Readers: files in, canonical rows out. Every format is in `formats`, how `auto` tells them apart in `detection`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aligner.data.readers.detection import detect_format
from aligner.data.readers.files import TASK_SUFFIXES, files_sha256, find_files, joined, plain_suffix
from aligner.data.readers.formats import FORMATS_OF, read_rows
from aligner.data.readers.kinds import Kind, as_kind
from aligner.data.readers.records import fault
from aligner.data.readers.tasks.read import (
    check_names,
    check_rationales,
    check_tasks,
    files_of_task,
    read_examples,
)
from aligner.data.rows import Dropped, Rated, Row
from aligner.errors import DataError, Problem, at
from aligner.recipe.data import SourceSpec

MAX_FAULTS = 3  # malformed rows of a source that are told one by one
MAX_SAMPLES = 10  # dropped rows kept of each reason of a source


@dataclass
class SourceRows:
    """What one source gave: the rows, and how many were dropped for which reason.

    rated: what annotators said, where several rated an answer. noted: rows in which something was found that is no
    reason to drop them. changed: what cleaning changed in the rows, dropped later or not (see `clean_sources`).
    samples: the first few dropped rows by reason, so that one can look at them.
    """

    path: str
    format: str
    files: list[Path]
    rows: list[Row] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    rated: list[Rated] = field(default_factory=list)
    noted: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[Row | Dropped]] = field(default_factory=dict)

    @property
    def rows_read(self) -> int:
        """Rows in the files: those that are here and those that were dropped."""
        return len(self.rows) + self.dropped.total()

    def keep(self, reason_against: Callable[[Row], str | None]) -> None:
        """Drop, and count, the rows that have a reason against them."""
        kept: list[Row] = []
        for row in self.rows:
            reason = reason_against(row)
            if reason is None:
                kept.append(row)
            else:
                self.drop(row, reason)
        self.rows = kept

    def drop(self, row: Row | Dropped, reason: str) -> None:
        """Count a row that is not, or no longer, among `rows`; the first of each reason are kept as samples."""
        self.dropped[reason] += 1
        samples = self.samples.setdefault(reason, [])
        if len(samples) < MAX_SAMPLES:
            samples.append(row)

    def sha256(self) -> str:
        """Hash of the source's files."""
        return files_sha256(self.files)


def read_source(spec: SourceSpec, kind: Kind | None) -> SourceRows:
    """All rows of a source, as rows of `kind`; None: of the kinds that their format gives.

    Raises `DataError` where a file is missing, the format gives rows of another kind or has no use for the source's
    criteria, or there is no row at all; and for malformed rows, the first few of them and how many more there are.
    """
    formats: list[str] = []
    faults: list[DataError] = []
    named = _named_files(spec)
    check_tasks(_task_files(named, spec), spec)
    source = SourceRows(joined(spec.path), "", source_files(spec))
    for file in named:
        name = detect_format(file, kind) if spec.format == "auto" else spec.format
        if kind and name not in FORMATS_OF[kind]:
            valid = ", ".join(FORMATS_OF[kind])
            whole = f"to train on all of it, set format: {name}; " if kind == "conversation" else ""
            raise fault(
                at(file), f'format "{name}" does not give {kind} rows', f"{whole}formats that do: {valid}"
            )
        if spec.criteria and name not in ("ratings", "rules"):
            raise fault(at(file), f'format "{name}" has no criteria', "leave criteria out of this source")
        if spec.of_tasks and name != "tasks":
            raise fault(
                at(file), f'format "{name}" has no templates', f"leave {spec.of_tasks} out of this source"
            )
        formats.append(name)
        items = read_examples(file, spec) if name == "tasks" else read_rows(file, name, kind, spec.criteria)
        for item in items:
            if isinstance(item, DataError):
                faults.append(item)
                continue
            if isinstance(item, Rated):
                source.rated.append(item)
                continue
            given = as_kind(item, kind) if kind and not isinstance(item, Dropped) else item
            if isinstance(given, Dropped):
                source.drop(given, given.reason)
            else:
                source.rows.append(given)
    check_rationales(spec, source.rows)
    source.format = ", ".join(dict.fromkeys(formats))
    _check_rows(source, faults)
    return source


def source_files(spec: SourceSpec) -> list[Path]:
    """Every file that a source's rows come from: those it names and, of tasks, those that they name."""
    return [
        *_named_files(spec),
        *dict.fromkeys(file for task in task_files(spec) for file in files_of_task(task)),
    ]


def check_task_names(train: Sequence[SourceSpec], holdout: Sequence[SourceSpec]) -> None:
    """`DataError` where two task files of these sources share a name; see `check_names`."""
    given = [[file for spec in part for file in task_files(spec)] for part in (train, holdout)]
    check_names(*given)


def task_files(spec: SourceSpec) -> list[Path]:
    """The task files that a source names."""
    return _task_files(_named_files(spec), spec)


def _task_files(named: list[Path], spec: SourceSpec) -> list[Path]:
    return [file for file in named if spec.format == "tasks" or plain_suffix(file) in TASK_SUFFIXES]


def _named_files(spec: SourceSpec) -> list[Path]:
    """The files that a source names; in a folder of tasks, the task files."""
    return find_files(spec.path, TASK_SUFFIXES) if spec.format == "tasks" else find_files(spec.path)


def _check_rows(source: SourceRows, faults: list[DataError]) -> None:
    told = [problem for error in faults[:MAX_FAULTS] for problem in error.problems]
    if len(faults) > MAX_FAULTS:
        what = (
            f"{len(faults):,} rows cannot be read, the first {MAX_FAULTS} as told; {source.rows_read:,} can"
        )
        told.append(Problem(source.path, what, "mend or delete them, or name another format"))
    if told:
        raise DataError(told)
    if not source.rows_read:
        raise fault(
            source.path, "there are no rows", "name other files, or take the source out of the recipe"
        )
