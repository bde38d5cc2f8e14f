"""Ready rows as one file that is mapped: the numbers of all rows end to end, those of their accounts, the rest as JSON.

The end says how long the JSON is, which says where everything lies, and has a checksum of it all.
"""

from __future__ import annotations

import json
import os
import secrets
import struct
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from aligner.data.assembly import Built
from aligner.data.costs import Costs
from aligner.data.instances import Epochs
from aligner.data.mix import Mix
from aligner.data.report import DataReport, SourceReport
from aligner.data.row_store import Names, RowStore, StoredRows
from aligner.data.shares import Draws, Part

T = TypeVar("T")
Arrays = dict[str, NDArray[Any]]
Asked = list[
    tuple[int, int]
]  # (rows, epochs that are begun with so many): what the build asked of its caller

END = struct.Struct("<QI")  # bytes of the JSON, checksum
BLOCK = 1 << 18  # numbers read or written at once
ALIGNED = 8  # bytes: every array begins at a multiple
REPORTS = ("train", "holdout", "curriculum", "against")


def can_be_kept(data: Built[T]) -> bool:
    """Whether a file can hold all of the rows."""
    return _stored(data.train).store.whole


def write_rows(path: Path, data: Built[T], asked: Asked) -> None:
    """Put the file there in one step. Raises OSError where it cannot be written."""
    train, holdout = _stored(data.train), _stored(data.holdout)
    store = train.store
    arrays: Arrays = {
        "packed": store.numbers,
        "ends": np.asarray(store.ends),
        "names": np.asarray(store.names.places),
        "costs": np.asarray(store.costs.numbers),
        "train": train.places,
        "holdout": holdout.places,
        "sources": np.asarray(data.mix.sources),
        "numbers": np.asarray(data.mix.numbers),
        "rendered": _columns(data.mix.rendered),
    }
    told = {
        "names": store.names.different,
        "templates": list(store.costs.templates),
        "asked": asked,
        "later": len(data.mix.rendered),
        "renderings": data.mix.renderings,
        "draws": asdict(data.mix.draws) if data.mix.draws else None,
        "words": data.report.words,
        "reports": {part: [_told(source) for source in getattr(data.report, part)] for part in REPORTS},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    try:
        _write(scratch, arrays, told)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _stored(rows: Sequence[T]) -> StoredRows[T]:
    assert isinstance(rows, StoredRows), "all kinds but documents are built so"
    return rows


def _write(path: Path, arrays: Arrays, told: Mapping[str, Any]) -> None:
    check, places = 0, {}
    with path.open("wb") as file:
        for name, values in arrays.items():
            places[name] = (values.dtype.str, file.tell(), values.nbytes)
            for block in _blocks(values):
                check = zlib.crc32(block, check)
                file.write(block)
        rest = json.dumps({**told, "places": places}).encode()
        file.write(rest)
        file.write(END.pack(len(rest), zlib.crc32(rest, check)))


def _blocks(values: NDArray[Any]) -> Iterator[bytes]:
    """The bytes of an array, and as many more as the next one needs to be aligned."""
    flat = values.reshape(-1)
    for start in range(0, len(flat), BLOCK):
        yield flat[start : start + BLOCK].tobytes()
    yield bytes(-values.nbytes % ALIGNED)


def read_rows(path: Path, kind: type[RowStore[T]], epochs: Epochs) -> Built[T] | None:
    """What was written, its numbers mapped; None where there is no whole file, or other epochs are begun now."""
    try:
        arrays, told = _read(path)
        if any(epochs(rows) != begun for rows, begun in told["asked"]):
            return None
        return _built(kind, arrays, told)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """The arrays, mapped, and what else is told. Raises ValueError where the file is not as it was written."""
    with path.open("rb") as file:
        left = file.seek(-END.size, os.SEEK_END)
        size, wanted = END.unpack(file.read())
        file.seek(0)
        check = 0
        while left > 0 and (block := file.read(min(left, ALIGNED * BLOCK))):
            check, left = zlib.crc32(block, check), left - len(block)
    if check != wanted:
        raise ValueError("not a whole file")
    whole = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    told = json.loads(whole[-END.size - size : -END.size].tobytes())
    places = told.pop("places").items()
    return {name: whole[start : start + size].view(kind) for name, (kind, start, size) in places}, told


def _built(kind: type[RowStore[T]], arrays: Arrays, told: dict[str, Any]) -> Built[T]:
    costs = Costs(arrays["costs"], told["templates"])
    store = kind.of(arrays["packed"], arrays["ends"], Names(arrays["names"], told["names"]), costs)
    reports = {part: [SourceReport(**source) for source in told["reports"][part]] for part in REPORTS}
    draws = told["draws"]
    mix = Mix(
        array("i", arrays["sources"].tobytes()),
        array("q", arrays["numbers"].tobytes()),
        costs.picked(arrays["train"]),
        Draws([Part(**part) for part in draws["parts"]], draws["quotas"]) if draws else None,
        _rendered(arrays["rendered"].reshape(-1, 3), told["later"]),
        told["renderings"],
    )
    return Built(
        train=store.picked(arrays["train"]),
        curriculum=[],
        holdout=store.picked(arrays["holdout"]),
        report=DataReport(**reports, words=told["words"]),
        mix=mix,
    )


def _columns(rendered: Sequence[Mapping[int, int]]) -> NDArray[np.int64]:
    """Epoch, row and where it lies then, of each row that is rendered anew: (R, 3)."""
    rows = [(epoch, *found) for epoch, each in enumerate(rendered) for found in each.items()]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _rendered(columns: NDArray[np.int64], epochs: int) -> list[dict[int, int]]:
    found: list[dict[int, int]] = [{} for _ in range(epochs)]
    for epoch, row, place in columns.tolist():
        found[epoch][row] = place
    return found


def _told(source: SourceReport) -> dict[str, Any]:
    told = asdict(replace(source, samples={}))
    del told["samples"]
    return told
