"""Readers: files in, canonical rows out. Every format is in `formats`, how `auto` tells them apart in `detection`."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from aligner.data.readers.detection import detect_format, detect_record
from aligner.data.readers.faults import Faults
from aligner.data.readers.files import (
    ROW_SUFFIXES,
    TASK_SUFFIXES,
    files_sha256,
    find_files,
    joined,
    plain_suffix,
)
from aligner.data.readers.formats import FORMATS_OF, READERS, read_rows, rows_of
from aligner.data.readers.hub import HubSplit, open_split
from aligner.data.readers.kinds import Kind, as_kind
from aligner.data.readers.records import fault
from aligner.data.readers.tasks.read import (
    check_names,
    check_rationales,
    check_tasks,
    files_of_task,
    read_examples,
)
from aligner.data.rows import BAD_ROW, Dropped, Rated, Row
from aligner.data.spool import Spool
from aligner.errors import DataError, at
from aligner.recipe.data import SourceSpec

Item = Row | Dropped | Rated | DataError

MAX_SAMPLES = 10  # dropped rows kept of each reason of a source; of those that cannot be read all are


@dataclass
class SourceRows:
    """What one source gave: the rows, and how many were dropped for which reason.

    rated: what annotators said, where several rated an answer. noted: rows in which something was found that is no
    reason to drop them. changed: what cleaning changed in the rows, dropped later or not (see `clean_sources`).
    samples: the first few dropped rows by reason, so that one can look at them. identity: which rows these are, where
    they come from no files.
    """

    path: str
    format: str
    files: list[Path]
    rows: Sequence[Row] = field(default_factory=Spool)
    dropped: Counter[str] = field(default_factory=Counter)
    rated: list[Rated] = field(default_factory=list)
    noted: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[Row | Dropped]] = field(default_factory=dict)
    identity: str = ""

    @property
    def rows_read(self) -> int:
        """Rows in the files: those that are here and those that were dropped."""
        return len(self.rows) + self.dropped.total()

    @property
    def bad_rows(self) -> list[Dropped]:
        """The rows that could not be read and are left out, all of them."""
        return [row for row in self.samples.get(BAD_ROW, []) if isinstance(row, Dropped)]

    def __post_init__(self) -> None:
        self.rows = self._spooled(self.rows)

    def _spooled(self, rows: Iterable[Row]) -> Spool[Row]:
        """The rows on disk; those of tasks, which are read in any order, in memory."""
        return rows if isinstance(rows, Spool) else Spool(rows, on_disk=not self.of_tasks)

    def with_rows(self, rows: Iterable[Row] = ()) -> SourceRows:
        """The same source with these rows, none of them dropped."""
        return SourceRows(self.path, self.format, self.files, self._spooled(rows), identity=self.identity)

    @property
    def of_tasks(self) -> bool:
        """Whether there may be rows of tasks, which are in memory."""
        return "tasks" in self.format.split(", ")

    def change(self, changed: Callable[[Row], Row]) -> None:
        """Put in the place of each row what `changed` makes of it, one after the other."""
        self.rows = self._spooled(map(changed, self.rows))

    def keep(self, reason_against: Callable[[Row], str | None]) -> None:
        """Drop, and count, the rows that have a reason against them."""
        self.judge(map(reason_against, self.rows))

    def judge(self, reasons: Iterable[str | None]) -> None:
        """Drop, and count, the rows that have a reason against them, which is given for each row in order."""
        kept = array("I")
        for place, reason in enumerate(reasons):
            if reason is None:
                kept.append(place)
            else:
                self.drop(self.rows[place], reason)
        if len(kept) < len(self.rows):
            self.rows = self._spooled(self.rows).picked(kept)

    def drop(self, row: Row | Dropped, reason: str) -> None:
        """Count a row that is not, or no longer, among `rows`; the first of each reason are kept as samples."""
        self.dropped[reason] += 1
        samples = self.samples.setdefault(reason, [])
        if len(samples) < MAX_SAMPLES or reason == BAD_ROW:
            samples.append(row)

    def sha256(self) -> str:
        """Hash of the source's files, or of what says which rows of the Hub these are."""
        return (
            hashlib.sha256(self.identity.encode()).hexdigest() if self.identity else files_sha256(self.files)
        )


def read_source(spec: SourceSpec, kind: Kind | None) -> SourceRows:
    """All rows of a source, as rows of `kind`; None: of the kinds that their format gives.

    Raises `DataError` where a file is missing, the format gives rows of another kind or has no use for the source's
    criteria, or there is no row at all; and for more malformed rows than the source skips, the first few of them and
    how many more there are.
    """
    faults = Faults(spec.skip_bad_rows)
    formats: list[str] = []
    tasks = _task_files(_named_files(spec), spec)
    check_tasks(tasks, spec)
    split = open_split(spec) if spec.hub_id else None
    rows: Spool[Row] = Spool(on_disk=not tasks)
    source = SourceRows(
        joined(spec.path), "", source_files(spec), rows, identity=split.identity if split else ""
    )

    def items() -> Iterator[Item]:
        for part in _split_part(split, spec, kind) if split else _file_parts(spec, kind):
            _check_part(part, spec, kind)
            formats.append(part.format)
            yield from part.read()

    for item in items():
        if isinstance(item, DataError):
            faults.note(item)
        elif isinstance(item, Rated):
            source.rated.append(item)
        else:
            given = as_kind(item, kind) if kind and not isinstance(item, Dropped) else item
            if isinstance(given, Dropped):
                source.drop(given, given.reason)
            else:
                rows.append(given)
        if spec.take and source.rows_read + faults.count == spec.take:
            break
    if tasks:
        check_rationales(spec, rows)
    source.format = ", ".join(dict.fromkeys(formats))
    for row in faults.settled(source.path, source.rows_read):
        source.drop(row, row.reason)
    if not source.rows_read:
        remedy = "name other files, or take the source out of the recipe"
        raise fault(source.path, "there are no rows", remedy)
    return source


class _Part(NamedTuple):
    """Rows of one format: those of a file, or of a split of a data set on the Hub."""

    where: str
    format: str
    read: Callable[[], Iterator[Item]]
    whole: bool = False  # it is held whole while it is read


def _file_parts(spec: SourceSpec, kind: Kind | None) -> Iterator[_Part]:
    for file in _named_files(spec):
        name = detect_format(file, kind, spec.skip_bad_rows) if spec.format == "auto" else spec.format
        if name == "tasks":
            yield _Part(at(file), name, partial(read_examples, file, spec), whole=True)
        else:
            read = partial(read_rows, file, name, kind, spec.criteria)
            yield _Part(at(file), name, read, whole=name == "kto" or plain_suffix(file) not in ROW_SUFFIXES)


def _split_part(split: HubSplit, spec: SourceSpec, kind: Kind | None) -> Iterator[_Part]:
    name = spec.format
    if name == "auto":
        first = next(split.records(), None)
        if first is None:
            raise fault(split.name, "the split has no rows", "name another split or data set")
        name = detect_record(first, kind)
    if name not in READERS:
        raise fault(split.name, f'format "{name}" is of files', f"valid: {', '.join(READERS)}")
    yield _Part(split.name, name, lambda: rows_of(split.records(), name, kind, spec.criteria), name == "kto")


def _check_part(part: _Part, spec: SourceSpec, kind: Kind | None) -> None:
    """`DataError` where the source or the stage asks of rows what their format does not give."""
    name = part.format
    if kind and name not in FORMATS_OF[kind]:
        valid = ", ".join(FORMATS_OF[kind])
        whole = f"to train on all of it, set format: {name}; " if kind == "conversation" else ""
        raise fault(
            part.where, f'format "{name}" does not give {kind} rows', f"{whole}formats that do: {valid}"
        )
    if spec.criteria and name not in ("ratings", "rules"):
        raise fault(part.where, f'format "{name}" has no criteria', "leave criteria out of this source")
    if spec.of_tasks and name != "tasks":
        raise fault(
            part.where, f'format "{name}" has no templates', f"leave {spec.of_tasks} out of this source"
        )
    if spec.streaming and part.whole:
        what = f'streaming: format "{name}" of such a file is read whole, or its rows together'
        raise fault(part.where, what, f"write rows as {', '.join(ROW_SUFFIXES)}, or leave streaming out")


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


def source_identity(spec: SourceSpec) -> str:
    """What says which rows of a data set on the Hub a source names; "" of files, whose bytes do."""
    return open_split(spec).identity if spec.hub_id else ""


def _task_files(named: list[Path], spec: SourceSpec) -> list[Path]:
    return [file for file in named if spec.format == "tasks" or plain_suffix(file) in TASK_SUFFIXES]


def _named_files(spec: SourceSpec) -> list[Path]:
    """The files that a source names; in a folder of tasks, the task files."""
    if spec.hub_id:
        return []
    return find_files(spec.path, TASK_SUFFIXES) if spec.format == "tasks" else find_files(spec.path)
