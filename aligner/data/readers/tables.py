"""Tables as `Record`s: `.csv`, `.tsv` and `.parquet`; and columns that have no names in the file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TextIO

from aligner.data.readers.files import opened, plain_suffix, read_bytes
from aligner.data.readers.records import Record, fault
from aligner.data.rows import Origin
from aligner.errors import DataError, at

_TOOLS = ("tools", "tool_calls", "function_call")
BUFFER_BYTES = (
    1 << 20
)  # read at once of a column of Parquet; without it all of a group of rows, however many it has
CELL_CHARS = 2**31 - 1  # the longest cell; csv's own limit of 131072 is shorter than many documents


@dataclass(frozen=True)
class Columns:
    """How a format calls the columns of a table without header, and whether a first row is one of its rows."""

    names: tuple[str, ...]
    fits: Callable[[Sequence[str]], bool]


def read_table(path: Path, columns: Columns | None) -> Iterator[Record | DataError]:
    """The rows of a `.csv` or `.tsv` file; `Origin.line` is the line on which a row starts.

    Without `columns` the first row is the header. With them a first row that has all their names is one, which may
    have others too and in any order; any other is a row. Cells are strings; a row with another number of cells than
    columns is given as its error.
    """
    names: tuple[str, ...] = ()
    kind: Literal["named", "unnamed"] = "unnamed"
    for line, cells in read_cells(path):
        if not names and (columns is None or set(columns.names) <= set(cells)):
            names, kind = _header(path, line, cells), "named"
            continue
        names = names or (columns.names if columns else ())
        if len(cells) != len(names):
            what = f"the row has {len(cells)} cells, and there are {len(names)} columns ({', '.join(names)})"
            yield fault(Origin(str(path), line), what, "give every row a cell for each column")
            continue
        yield Record(Origin(str(path), line), dict(zip(names, cells, strict=True)), kind)


def read_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line on which it starts, cells) of each row that is not blank.

    In `.csv`, quotes hold commas and line ends (RFC 4180); in `.tsv` a quote is a character like any other, as
    in IANA's text/tab-separated-values.
    """
    csv.field_size_limit(CELL_CHARS)
    try:
        with opened(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            yield from _cells(path, text)
    except UnicodeDecodeError:
        decoded(path)  # says on which line
        raise


def _cells(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    if plain_suffix(path) == ".tsv":
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(file, strict=True)  # an open quote is an error, and not the rest of the file
    line = 1
    try:
        for cells in reader:
            if cells:  # line ends in a cell are those of the file
                yield line, [cell.replace("\r\n", "\n") for cell in cells]
            line = reader.line_num + 1
    except csv.Error as error:
        raise fault(at(path, line), f"not a row of a table ({error})", "mend or delete this row") from error


def check_separator(path: Path, line: int, cells: list[str]) -> None:
    """`DataError` where a first row is one cell, and holds what parts the columns of other tables."""
    mark = next((mark for mark in ";\t|" if mark in cells[0]), None)
    if len(cells) == 1 and mark:
        what = f"the first row is one cell; {mark!r} parts no columns in {plain_suffix(path)} files"
        raise fault(at(path, line), what, "part them by commas in .csv, by tabs in .tsv")


def _header(path: Path, line: int, cells: list[str]) -> tuple[str, ...]:
    check_separator(path, line, cells)
    if len(set(cells)) < len(cells):
        what = f"two columns have the same name ({', '.join(cells)})"
        raise fault(at(path, line), what, "name every column in the first row, each once")
    return tuple(cells)


def decoded(path: Path) -> str:
    """The text of a file in UTF-8; `DataError` with the line where it is none."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise fault(
            at(path, line), f"not UTF-8 (byte {error.start + 1})", "save the file as UTF-8"
        ) from error


def read_parquet(path: Path) -> Iterator[Record]:
    """The rows of a `.parquet` file; `Origin.line` is the row's index from 1.

    A column of structs gives every row the members of all rows, null where a row has none. In tools and their calls,
    whose members differ by tool, such nulls are left out.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    with _parquet_bytes(path) as file:
        try:
            for batch in pq.ParquetFile(file, buffer_size=BUFFER_BYTES).iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(Origin(str(path), number), unpadded(row))
        except (pa.ArrowException, OSError, ValueError) as error:
            what = f"not a whole parquet file ({error})"
            raise fault(at(path), what, "fetch the file again, or write it anew") from error


def _parquet_bytes(path: Path) -> AbstractContextManager[BinaryIO]:
    """The file; a packed one is unpacked whole, since its end is read first."""
    return opened(path) if path.suffix == ".parquet" else io.BytesIO(read_bytes(path))


def unpadded(row: Mapping[str, object]) -> dict[str, object]:
    """A row of a table of structs, in which those about tools have no null members."""
    return {key: _unpadded(row[key], key in _TOOLS) for key in row}


def _unpadded(value: object, about_tools: bool) -> object:
    """The value, in which no struct that is about tools has a null member."""
    if isinstance(value, list):
        return [_unpadded(entry, about_tools) for entry in value]
    if not isinstance(value, dict):
        return value
    members = {key: _unpadded(inner, about_tools or key in _TOOLS) for key, inner in value.items()}
    return {key: inner for key, inner in members.items() if not (about_tools and inner is None)}
