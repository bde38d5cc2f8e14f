"""Whatever bytes a file holds, in every format: rows and drops that account for it, or one error with its place."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligner.data.readers import SourceRows
from aligner.data.readers.formats import FORMATS_OF
from aligner.data.rows import row_text
from aligner.errors import DataError
from tests.data.test_readers import GOOD, packed, parquet, read

SEVERAL = (  # rows of a file are none, one or several of these formats'
    "self_instruct", "natural_instructions", "rankings", "alpaca_rankings", "kto", "oasst", "ratings", "rules",
)  # fmt: skip
ROW = re.compile(rb"[^\n]*\S[^\n]*")


def table(rows: list[dict], delimiter: str) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    cells = [
        [value if isinstance(value, str) else json.dumps(value) for value in row.values()] for row in rows
    ]
    writer.writerows([list(rows[0]), *cells])
    return file.getvalue().encode()


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


WRITTEN: dict[str, Callable[[list[dict]], bytes]] = {
    "rows.jsonl": lines,
    "rows.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "rows.csv": lambda rows: table(rows, ","),
    "rows.tsv": lambda rows: table(rows, "\t"),
    "rows.parquet": parquet,
    "rows.jsonl.gz": lambda rows: gzip.compress(lines(rows), mtime=0),
    "rows.jsonl.zst": lambda rows: packed(lines(rows)),
}
BITS = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [
            b"\n",
            b"\r",
            b"\0",
            b'"',
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b"\t",
            b"\\",
            b"\\ud800",
            b"\xff",
            b"\xef\xbb\xbf",
        ]
    ),
    st.sampled_from(
        [b"null", b"NaN", b"1e999", b"9" * 5000, b"[" * 3000, b'{"a":' * 2000, b"\xe2\x80\xa8", b"\x1a"]
    ),
)
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), BITS), max_size=3)


def changed(data: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """At each place so many bytes are taken out, and others put in."""
    for place, cut, put in changes:
        at = round(place * len(data))
        data = data[:at] + put + data[at + cut :]
    return data


def given_or_told(path: Path, kind: str, name: str) -> SourceRows | None:
    """What a file gives; None where it gives an error, which has a place in the file, and a remedy."""
    try:
        source = read(path, kind, name)  # type: ignore[arg-type]
    except DataError as error:
        problem = error.problems[0]
        file, line = re.fullmatch(
            r"(.*?\.\w+(?:\.(?:gz|zst))?)(?::(\d+))?", problem.where, re.DOTALL
        ).groups()  # type: ignore[union-attr]
        assert file == str(path) and problem.what and problem.remedy
        assert line is None or 1 <= int(line) <= path.read_bytes().count(b"\n") + 2 or path.suffix != ".jsonl"
        return None
    for row in source.rows:
        row_text(row).encode()
    return source


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@pytest.mark.parametrize("name", GOOD)
def test_a_damaged_file_gives_rows_or_one_error(tmp_path: Path, name: str, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from([*WRITTEN, "rows.jsonl"]))
    path = tmp_path / file
    count = data.draw(st.integers(1, 3))
    path.write_bytes(changed(WRITTEN[file]([GOOD[name]] * count), data.draw(CHANGES)))
    kinds = [kind for kind, formats in FORMATS_OF.items() if name in formats]
    kind = data.draw(st.sampled_from(kinds))
    source = given_or_told(path, kind, data.draw(st.sampled_from([name, "auto"])))
    if source and name not in SEVERAL and source.format == name and file == "rows.jsonl":
        assert source.rows_read == len(ROW.findall(path.read_bytes()))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=200), file=st.sampled_from([*WRITTEN, "a.txt", "a.md"]))
def test_any_bytes_at_all_give_rows_or_one_error(tmp_path: Path, content: bytes, file: str) -> None:
    path = tmp_path / file
    path.write_bytes(content)
    for kind in FORMATS_OF:
        given_or_told(path, kind, "auto")
