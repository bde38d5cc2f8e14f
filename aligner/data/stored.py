"""Ready rows as one file: the numbers of all rows end to end, to be mapped; then their accounts.

The accounts are safetensors with JSON among them. The end says how long the numbers are, and has a checksum of it all.
"""

from __future__ import annotations

import json
import os
import secrets
import struct
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from aligner.data.assembly import Built
from aligner.data.costs import Costs
from aligner.data.instances import Epochs
from aligner.data.mix import Mix
from aligner.data.report import DataReport, SourceReport
from aligner.data.row_store import Names, Numbers, RowStore, StoredRows
from aligner.data.shares import Draws, Part

T = TypeVar("T")
Arrays = dict[str, NDArray[Any]]
Asked = list[
    tuple[int, int]
]  # (rows, epochs that are begun with so many): what the build asked of its caller

END = struct.Struct("<QI")  # bytes of the rows' numbers, checksum
BLOCK = 1 << 22  # bytes or numbers read or written at once
REPORTS = ("train", "holdout", "curriculum", "against")


def can_be_kept(data: Built[T]) -> bool:
    """Whether a file can hold all of the rows."""
    return _stored(data.train).store.whole


def write_rows(path: Path, data: Built[T], asked: Asked) -> None:
    """Put the file there in one step. Raises OSError where it cannot be written."""
    train, holdout = _stored(data.train), _stored(data.holdout)
    store = train.store
    arrays = {
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
    arrays["told"] = np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    try:
        _write(scratch, store.numbers, save(arrays))
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _stored(rows: Sequence[T]) -> StoredRows[T]:
    assert isinstance(rows, StoredRows), "all kinds but documents are built so"
    return rows


def _write(path: Path, numbers: Numbers, rest: bytes) -> None:
    check = 0
    with path.open("wb") as file:
        for start in range(0, len(numbers), BLOCK):
            block = numbers[start : start + BLOCK].tobytes()
            check = zlib.crc32(block, check)
            file.write(block)
        file.write(rest)
        file.write(END.pack(numbers.nbytes, zlib.crc32(rest, check)))


def read_rows(path: Path, kind: type[RowStore[T]], epochs: Epochs) -> Built[T] | None:
    """What was written, its numbers mapped; None where there is no whole file, or other epochs are begun now."""
    try:
        numbers, rest = _read(path)
        arrays = load(rest)
        told = json.loads(arrays.pop("told").tobytes())
        if any(epochs(rows) != begun for rows, begun in told["asked"]):
            return None
        return _built(kind, numbers, arrays, told)
    except (OSError, ValueError, KeyError, TypeError, struct.error, SafetensorError):
        return None


def _read(path: Path) -> tuple[Numbers, bytes]:
    """The rows' numbers and what follows them. Raises ValueError where the file is not as it was written."""
    with path.open("rb") as file:
        end = file.seek(-END.size, os.SEEK_END)
        size, wanted = END.unpack(file.read())
        file.seek(0)
        check, left = 0, size
        while left > 0 and (block := file.read(min(left, BLOCK))):
            check, left = zlib.crc32(block, check), left - len(block)
        rest = file.read(max(end - size, 0))
    if left or zlib.crc32(rest, check) != wanted:
        raise ValueError("not a whole file")
    numbers = np.memmap(path, dtype=np.int32, mode="r", shape=(size // 4,)) if size else np.zeros(0, np.int32)
    return numbers, rest


def _built(kind: type[RowStore[T]], numbers: Numbers, arrays: Arrays, told: dict[str, Any]) -> Built[T]:
    costs = Costs(array("i", arrays["costs"].tobytes()), told["templates"])
    names = Names(array("i", arrays["names"].tobytes()), told["names"])
    store = kind.of(numbers, array("q", arrays["ends"].tobytes()), names, costs)
    reports = {part: [SourceReport(**source) for source in told["reports"][part]] for part in REPORTS}
    draws = told["draws"]
    mix = Mix(
        array("i", arrays["sources"].tobytes()),
        array("q", arrays["numbers"].tobytes()),
        costs.picked(arrays["train"]),
        Draws([Part(**part) for part in draws["parts"]], draws["quotas"]) if draws else None,
        _rendered(arrays["rendered"], told["later"]),
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
