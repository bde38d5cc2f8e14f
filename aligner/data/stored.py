"""Tokenised conversations as one safetensors file: arrays of all rows end to end, and their accounts as JSON."""

from __future__ import annotations

import gc
import json
import os
import secrets
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from aligner.data.build import Conversations, conversation_cost
from aligner.data.instances import Epochs
from aligner.data.mix import Mix
from aligner.data.report import DataReport, SourceReport
from aligner.data.shares import Draws, Part
from aligner.data.tokens import TokenRow

Arrays = dict[str, NDArray[Any]]
Asked = list[
    tuple[int, int]
]  # (rows, epochs that are begun with so many): what the build asked of its caller

REPORTS = ("train", "holdout", "curriculum", "against")


def write_conversations(path: Path, data: Conversations, asked: Asked) -> None:
    """Put the file there in one step. Raises OSError where it cannot be written."""
    texts: dict[str, int] = {}
    arrays = _row_arrays("train", data.train, texts) | _row_arrays("holdout", data.holdout, texts)
    arrays["sources"] = np.array(data.mix.sources, dtype=np.int32)
    arrays["numbers"] = np.array(data.mix.numbers, dtype=np.int64)
    told = {
        "texts": list(texts),
        "asked": asked,
        "places": data.mix.places,
        "draws": asdict(data.mix.draws) if data.mix.draws else None,
        "words": data.report.words,
        "reports": {part: [_told(source) for source in getattr(data.report, part)] for part in REPORTS},
        "checks": {name: _check(array) for name, array in arrays.items()},
    }
    arrays["told"] = np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)
    arrays["told.check"] = np.array([_check(arrays["told"])])
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    try:
        scratch.write_bytes(save(arrays))
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def read_conversations(path: Path, epochs: Epochs) -> Conversations | None:
    """What was written; None where there is no whole file, or another number of epochs is begun now."""
    try:
        arrays = load(path.read_bytes())
        if int(arrays.pop("told.check")[0]) != _check(arrays["told"]):
            return None
        told = json.loads(arrays.pop("told").tobytes())
        if told["checks"] != {name: _check(array) for name, array in arrays.items()}:
            return None
        if any(epochs(rows) != begun for rows, begun in told["asked"]):
            return None
        with _without_collection():
            return _conversations(arrays, told)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _conversations(arrays: Arrays, told: dict[str, Any]) -> Conversations:
    train, holdout = (_rows(part, arrays, told["texts"]) for part in ("train", "holdout"))
    reports = {part: [SourceReport(**source) for source in told["reports"][part]] for part in REPORTS}
    report = DataReport(**reports, words=told["words"])
    return Conversations(train, holdout, report, _mix(arrays, told, train))


@contextmanager
def _without_collection() -> Iterator[None]:
    """No search for garbage, of which there is none: it would look at all rows over and over, for half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _told(source: SourceReport) -> dict[str, Any]:
    told = asdict(replace(source, samples={}))
    del told["samples"]
    return told


def _check(array: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8))


def _row_arrays(part: str, rows: Sequence[TokenRow], texts: dict[str, int]) -> Arrays:
    flags = [(row.prompt_cut, row.answer_cut, row.rewritten) for row in rows]
    about = [
        (
            len(row.input_ids),
            texts.setdefault(row.family, len(texts)),
            texts.setdefault(row.template, len(texts)),
            row.shots,
        )
        for row in rows
    ]
    ids = [np.array(row.input_ids, dtype=np.int32) for row in rows]
    learnt = [np.array(row.supervised, dtype=bool) for row in rows]
    return {
        f"{part}.ids": np.concatenate([np.zeros(0, np.int32), *ids]),
        f"{part}.supervised": np.packbits(np.concatenate([np.zeros(0, bool), *learnt])),
        f"{part}.about": np.array(about, dtype=np.int64).reshape(-1, 4),
        f"{part}.flags": np.array(flags, dtype=bool).reshape(-1, 3),
    }


def _rows(part: str, arrays: Arrays, texts: list[str]) -> list[TokenRow]:
    ids = arrays[f"{part}.ids"]
    objects = np.arange(int(ids.max(initial=0)) + 1).astype(object)  # one of each id, as when they are made
    all_ids = objects[ids].tolist()
    learnt = np.unpackbits(arrays[f"{part}.supervised"], count=len(ids)).astype(bool).tolist()
    rows, start = [], 0
    about, flags = arrays[f"{part}.about"].tolist(), arrays[f"{part}.flags"].tolist()
    for (length, family, template, shots), cuts in zip(about, flags, strict=True):
        end = start + length
        rows.append(
            TokenRow(all_ids[start:end], learnt[start:end], texts[family], *cuts, texts[template], shots)
        )
        start = end
    return rows


def _mix(arrays: Arrays, told: dict[str, Any], train: list[TokenRow]) -> Mix:
    draws = told["draws"]
    return Mix(
        arrays["sources"].tolist(),
        arrays["numbers"].tolist(),
        [conversation_cost(row) for row in train],
        Draws([Part(**part) for part in draws["parts"]], draws["quotas"]) if draws else None,
        told["places"],
    )
