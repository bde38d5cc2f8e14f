"""Web pages, alone and in archives; and what is said where the libraries for them are missing."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligner.errors import DataError
from tests.data.test_readers import read

STORY = "The cat sat on the mat all day, and in the evening it went out to look for mice in the garden."
PAGE = f"""<!doctype html><html><head><title>Cats</title><style>p {{color: red}}</style></head><body>
<nav><a href="/">Home</a> <a href="/dogs">Dogs</a></nav>
<article><h1>Of cats</h1><p>{STORY}</p><p>{STORY.replace("cat", "dog")}</p></article>
<footer>Copyright, imprint, cookies</footer></body></html>"""


def response(body: bytes, *, status: str = "200 OK", kind: str = "text/html; charset=utf-8") -> bytes:
    """One WARC record with an HTTP response in it."""
    http = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n\r\n".encode() + body
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:1>\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        "WARC-Target-URI: http://cats.example/\r\nContent-Type: application/http;msgtype=response\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("name", "library"), [("a.html", "trafilatura"), ("a.warc", "warcio.archiveiterator")]
)
def test_a_missing_library_is_one_error_that_names_the_extra(tmp_path, monkeypatch, name, library):
    (tmp_path / name).write_text(PAGE)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DataError, match="is missing") as error:
        read(tmp_path / name, "document")
    (problem,) = error.value.problems
    assert problem.where == str(tmp_path / name) and "aligner[data]" in problem.remedy


def test_a_page_gives_its_main_text(tmp_path):
    pytest.importorskip("trafilatura")
    (tmp_path / "a.html.gz").write_bytes(gzip.compress(PAGE.encode()))
    (tmp_path / "b.htm").write_bytes(PAGE.replace("cat", "cät").encode("latin-1"))
    (tmp_path / "c.html").write_text("<html><body></body></html>")
    source = read(tmp_path, "document")
    assert source.format == "html" and source.dropped == {"no_main_text": 1}
    assert STORY in source.rows[0].text and STORY.replace("cat", "cät") in source.rows[1].text
    assert not any(word in row.text for row in source.rows for word in ("Home", "imprint", "color", "<p>"))


def test_an_archive_gives_a_document_a_page(tmp_path):
    pytest.importorskip("trafilatura")
    pytest.importorskip("warcio")
    page = PAGE.encode()
    parts = [
        response(page),
        response(b"PNG", kind="image/png"),
        response(page, status="404 Gone"),
        response(page),
    ]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    (tmp_path / "b.warc").write_bytes(b"".join(parts))
    for name in ("a.warc.gz", "b.warc"):
        source = read(tmp_path / name, "document")
        assert source.format == "warc" and source.dropped == {"no_page": 2}
        assert [row.origin.line for row in source.rows] == [1, 4] and STORY in source.rows[0].text


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (response(PAGE.encode())[:-200], r"a\.warc:1: the record is cut \(196 bytes short\)"),
        (response(PAGE.encode()) + b"junk\r\n\r\n", r"a\.warc:2: not a WARC record"),
        (b"WARC/1.0\r\nWARC-Type: response\r\n", r"a\.warc:1: not a WARC record"),
    ],
)
def test_damaged_archives_say_which_record(tmp_path, data, what):
    pytest.importorskip("trafilatura")
    pytest.importorskip("warcio")
    (tmp_path / "a.warc").write_bytes(data)
    with pytest.raises(DataError, match=what):
        read(tmp_path / "a.warc", "document")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=99),
        st.text(max_size=60).map(lambda text: PAGE.replace("cat", text).encode("utf-8", "replace")),
        st.integers(0, 700).map(lambda cut: response(PAGE.encode())[:cut] + b"\r\n"),
    ),
    name=st.sampled_from(["a.html", "a.warc"]),
)
def test_any_bytes_give_documents_or_a_data_error(tmp_path: Path, data, name):
    pytest.importorskip("trafilatura")
    pytest.importorskip("warcio")
    (tmp_path / name).write_bytes(data)
    try:
        source = read(tmp_path / name, "document")
    except DataError:
        return
    assert all(row.text and row.text.encode() for row in source.rows)


def test_a_record_whose_header_ends_early_is_told(tmp_path):
    (tmp_path / "a.warc").write_bytes(response(PAGE.encode())[:110] + b"\r\n")
    with pytest.raises(DataError, match=r"a\.warc:1: "):
        read(tmp_path / "a.warc", "document")
