"""Files of JSON as `Record`s: a list, one object, or one row a line."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from aligner.data.readers.files import plain_suffix, read_bytes, read_lines
from aligner.data.readers.records import Record, fault, kind_of
from aligner.data.rows import Origin
from aligner.errors import DataError, at

BOM = b"\xef\xbb\xbf"
MAX_ROW_BYTES = 20_000_000  # of a line: a book has about a million


def read_json(path: Path) -> Iterator[Record | DataError]:
    """The rows of a file in order; `Origin.line` is the line, or the index from 1 in a JSON list.

    A row is an object, or a bare string, which is a prompt and nothing else: {"prompt": string}. A row that is neither
    is given as its error, so that the rows behind it can be read, too.
    """
    if plain_suffix(path) == ".jsonl":
        yield from _line_records(path, read_lines(path, MAX_ROW_BYTES))
        return
    data = read_bytes(path).removeprefix(BOM)
    if data.lstrip()[:1] == b"[":
        yield from _list_records(path, data)
    elif (whole := _one_object(data)) is not None:
        yield Record(Origin(str(path), 1), whole)
    else:
        yield from _line_records(path, io.BytesIO(data))


def _line_records(path: Path, lines: Iterable[bytes]) -> Iterator[Record | DataError]:
    for number, line in enumerate(lines, start=1):
        line = line.removeprefix(BOM) if number == 1 else line
        if line.strip():
            yield _line_record(Origin(str(path), number), line)


def _line_record(origin: Origin, line: bytes) -> Record | DataError:
    if len(line) > MAX_ROW_BYTES:
        what = f"the row has more than {MAX_ROW_BYTES:,} bytes"
        return fault(origin, what, "a line end is missing, or split the text into several rows")
    try:
        return _record(origin, _parse(line, origin))
    except DataError as error:
        return error


def _list_records(path: Path, data: bytes) -> Iterator[Record | DataError]:
    values = _parse(data, at(path))
    if not isinstance(values, list):
        raise fault(at(path), "not a JSON list", "write one list of objects, or one object a line")
    for index, value in enumerate(values, start=1):
        yield _record(Origin(str(path), index), value)


def _record(origin: Origin, value: object) -> Record | DataError:
    if isinstance(value, str):
        return Record(origin, {"prompt": value})
    if not isinstance(value, dict):
        return fault(origin, f"the row is {kind_of(value)}", "every row must be a JSON object")
    return Record(origin, value)


def _one_object(data: bytes) -> dict[str, object] | None:
    """The file as one JSON object, or None where it is something else (lines of objects, or damaged)."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _parse(data: bytes, where: Origin | str) -> object:
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise fault(
            where, f"not UTF-8 (byte {error.start + 1} of the row)", "save the file as UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise fault(where, f"not JSON ({error})", "mend or delete this row") from error
