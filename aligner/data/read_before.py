"""Sources that were read whole, without a fault: they are not read again to find one, as long as nothing changes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from aligner.data.keeping import clear, fingerprint_of, worth_keeping
from aligner.data.readers import read_source
from aligner.data.readers.kinds import Kind
from aligner.errors import DataError
from aligner.recipe.data import SourceSpec


def check_source(spec: SourceSpec, kind: Kind | None, folder: Path | None) -> None:
    """Raises `DataError` as `read_source` does; `folder` has the marks of what was read, None has none."""
    before = _fingerprint(spec, kind) if folder else None
    mark = folder / f"{before}.read" if folder and before else None
    if mark and os.path.isfile(mark):
        with suppress(OSError):
            mark.touch()  # the marks that were used last stay
        return
    source = read_source(spec, kind)
    if mark and worth_keeping(source.rows_read) and _fingerprint(spec, kind) == before:
        with suppress(OSError):  # it will be read again
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            clear(mark.parent)


def _fingerprint(spec: SourceSpec, kind: Kind | None) -> str | None:
    try:
        return fingerprint_of({"source": spec.model_dump(mode="json"), "kind": kind}, [spec])
    except DataError:  # told by the reading
        return None
