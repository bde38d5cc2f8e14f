"""Sources that were read whole, without a fault: they are not read again to find one, as long as nothing changes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from aligner.data.collector import only_new_objects
from aligner.data.keeping import clear, fingerprint_of, worth_keeping
from aligner.data.readers import SourceRows, read_source
from aligner.data.readers.kinds import Kind
from aligner.errors import DataError
from aligner.recipe.data import SourceSpec

AsKind = tuple[SourceSpec, Kind | None]


def check_source(spec: SourceSpec, kind: Kind | None, folder: Path | None) -> SourceRows | None:
    """The rows, or None where they are known to be without a fault.

    Raises `DataError` as `read_source` does; `folder` has the marks of what was read, None has none.
    """
    before = _mark(spec, kind, folder) if folder else None
    if before and os.path.isfile(before):
        with suppress(OSError):
            before.touch()  # the marks that were used last stay
        return None
    with only_new_objects():
        source = read_source(spec, kind)
    if folder and worth_keeping(source.rows_read) and _mark(spec, kind, folder) == before:
        mark_read([(spec, kind)], folder)
    return source


def mark_read(sources: Iterable[AsKind], folder: Path) -> None:
    """Mark sources that were just read without a fault."""
    with suppress(OSError):  # they will be read again
        folder.mkdir(parents=True, exist_ok=True)
        for spec, kind in sources:
            if mark := _mark(spec, kind, folder):
                mark.touch()
        clear(folder)


def _mark(spec: SourceSpec, kind: Kind | None, folder: Path) -> Path | None:
    """The file that says so; None of what lies on the Hub, of bad rows to be counted, and where a file is missing."""
    if spec.hub_id or spec.skip_bad_rows:
        return None
    try:
        name = fingerprint_of({"source": spec.model_dump(mode="json"), "kind": kind}, [spec])
    except (DataError, OSError):  # which the reading tells
        return None
    return folder / f"{name}.read"
