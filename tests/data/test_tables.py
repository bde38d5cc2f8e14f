"""Tables with a header and without, packed files, and what is damaged."""

from __future__ import annotations

import csv

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligner.data.readers.formats import COLUMNS, READERS, read_records
from aligner.data.rows import Conversation
from aligner.errors import DataError
from tests.data.chats import chat
from tests.data.test_readers import GOOD, KIND, packed, parquet, read, write

FLAT = [name for name, row in GOOD.items() if all(isinstance(value, str) for value in row.values())]


@pytest.mark.parametrize("name", FLAT)
def test_auto_finds_the_format_by_the_header(tmp_path, name):
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(GOOD[name]))
        writer.writeheader()
        writer.writerows([GOOD[name]] * 2)
    source = read(tmp_path / "a.csv", KIND[name])
    assert (source.format, source.rows_read) == (name, 2)


def test_cells_hold_commas_quotes_and_line_ends_and_lines_are_counted(tmp_path):
    (tmp_path / "a.csv").write_text('prompt,completion\n"a, ""b""\nc",d\r\n\n"e",f\n', newline="")
    records = list(read_records(tmp_path / "a.csv"))
    assert [(record.origin.line, dict(record.value)) for record in records] == [
        (2, {"prompt": 'a, "b"\nc', "completion": "d"}),
        (5, {"prompt": "e", "completion": "f"}),
    ]
    (tmp_path / "long.csv").write_text(f"text\n{'x' * 200_000}\n")
    assert len(read(tmp_path / "long.csv", "document").rows[0].text) == 200_000


def test_tables_without_header_are_known_by_their_first_row(tmp_path):
    (tmp_path / "a.tsv").write_text('"Is 1 more than 0?" he said.\\nyes or no\tyes\t"One" is.\n')
    (tmp_path / "b.csv").write_text("1+1,1,2,3,4,B\n2+2,1,2,3,4,D\n")
    (row,) = read(tmp_path / "a.tsv", "conversation").rows
    question = '"Is 1 more than 0?" he said.\nyes or no'
    assert row == Conversation(row.origin, chat(question, '"One" is.\nThe answer is yes.'), "flan_cot")
    answers = [row.turns[1].content for row in read(tmp_path / "b.csv", "conversation", "mmlu").rows]
    assert answers == ["B", "D"] and read(tmp_path / "b.csv", "conversation").rows_read == 2
    (tmp_path / "c.tsv").write_text("question\tanswer\trationale\nWhy me?\tno\tNo why.\n")
    assert read(tmp_path / "c.tsv", "conversation").rows_read == 1  # a header is no row


@pytest.mark.parametrize(
    ("header", "cells", "turns"),
    [
        ("question,rationale,answer", "1+1?,One and one.,2", chat("1+1?", "One and one.\nThe answer is 2.")),
        ("id,question,answer,rationale", "7,1+1?,2,One.", chat("1+1?", "One.\nThe answer is 2.")),
        ("answer,D,C,B,A,question", "B,8,7,6,5,1+5?", chat("1+5?\nA. 5\nB. 6\nC. 7\nD. 8", "B")),
        ("question,subject,A,B,C,D,answer", "1+5?,sums,5,6,7,8,B", chat("1+5?\nA. 5\nB. 6\nC. 7\nD. 8", "B")),
    ],
)
def test_columns_under_a_header_are_read_by_their_names(tmp_path, header, cells, turns):
    (tmp_path / "a.csv").write_text(f"\n{header}\n{cells}\n")
    (tmp_path / "b.tsv").write_text(f"{header}\n{cells}\n".replace(",", "\t"))
    name = "mmlu" if "A" in header else "flan_cot"
    for path, data_format in [(tmp_path / "a.csv", "auto"), (tmp_path / "b.tsv", name)]:
        source = read(path, "conversation", data_format)
        assert (source.format, [row.turns for row in source.rows]) == (name, [turns])


def test_line_ends_are_written_out_in_tables_without_header_alone(tmp_path):
    cells = ["Is \\nabla f zero?", "no", "\\neq is the sign."]
    asked = chat("Is \\nabla f zero?", "\\neq is the sign.\nThe answer is no.")
    header = dict(zip(("question", "answer", "rationale"), cells, strict=True))
    (tmp_path / "a.tsv").write_text("\t".join(header) + "\n" + "\t".join(cells) + "\n")
    write(tmp_path / "b.jsonl", header)
    (tmp_path / "c.parquet").write_bytes(parquet([header]))
    for name in ("a.tsv", "b.jsonl", "c.parquet"):
        assert [row.turns for row in read(tmp_path / name, "conversation").rows] == [asked]
    (tmp_path / "d.tsv").write_text("\t".join(cells) + "\n")
    assert read(tmp_path / "d.tsv", "conversation").rows[0].turns[0].content == "Is \nabla f zero?"


def test_cells_give_numbers_and_judgements(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,chosen,rejected,margin\na,x,y,1.5\na,x,z,\n")
    assert [row.margin for row in read(tmp_path / "a.csv", "pair").rows] == [1.5, None]
    (tmp_path / "b.tsv").write_text("prompt\tcompletion\tlabel\na\tx\tTrue\na\ty\tfalse\n")
    assert [(row.chosen, row.rejected) for row in read(tmp_path / "b.tsv", "pair").rows] == [("x", "y")]
    (tmp_path / "c.csv").write_text("instruction,output_1,output_2,preference\na,x,y,2\na,x,y,\na,x,y,0\n")
    source = read(tmp_path / "c.csv", "pair")
    assert source.rows[0].chosen == "y" and source.dropped == {"no_preference": 1, "tie": 1}


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ("prompt,chosen,rejected,margin\na,x,y,big\n", r':2: "margin" is a string'),
        ("prompt,chosen,rejected,margin\na,x,y,nan\n", r':2: "margin" is a number'),
        ("prompt,completion,label\na,x,true\na,y,1\n", r':3: "label" is a string'),
    ],
)
def test_cells_that_are_no_number_and_no_judgement_are_errors(tmp_path, table, what):
    (tmp_path / "a.csv").write_text(table)
    with pytest.raises(DataError, match=what):
        read(tmp_path / "a.csv", "pair")


def test_every_format_without_header_knows_its_own_columns():
    assert set(COLUMNS) <= set(READERS)
    for name, columns in COLUMNS.items():
        cells = list(GOOD[name].values())
        assert list(GOOD[name]) == list(columns.names)
        assert [other for other in COLUMNS if COLUMNS[other].fits(cells)] == [name]
        assert not any(other.fits(columns.names) for other in COLUMNS.values())  # a header is not a row


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.csv", b"prompt,completion\na\n", r"a.csv:2: the row has 1 cells, and there are 2 columns"),
        ("b.csv", b'text\na\n"b\n\nc', r"b.csv:3: not a row of a table"),
        ("c.csv", b"text\na\n\xff\n", r"c.csv:3: not UTF-8"),
        ("d.csv", b"text,text\na,b\n", r"d.csv:1: two columns have the same name"),
        ("e.csv", b"", r"e.csv: the file has no rows"),
        ("f.csv", b"word,meaning\na,b\n", r"f.csv:1: no known format has these keys: word, meaning"),
        ("g.tsv", b"What is it?\tb\tc\nd\te\n", r"g.tsv:2: the row has 2 cells, and there are 3 columns"),
        ("h.parquet", b"PAR1", r"h.parquet: not a whole parquet file"),
        ("i.parquet", parquet([GOOD["alpaca"]])[:-9], r"i.parquet: not a whole parquet file"),
        ("j.jsonl.zst", packed(b'{"text": "a"}')[:-2], r"j.jsonl.zst: not a whole zstd file"),
        ("k.jsonl.zst", b"plain", r"k.jsonl.zst: not a whole zstd file"),
    ],
)
def test_damaged_files_say_where(tmp_path, name, data, what):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=what):
        read(tmp_path / name, "document" if b"text" in data else "conversation")


def test_zstd_frames_follow_each_other(tmp_path):
    lines = [b'{"text": "a"}\n', b'{"text": "b"}\n']
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(map(packed, lines)))
    assert [row.text for row in read(tmp_path / "a.jsonl.zst", "document").rows] == ["a", "b"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=100),
        st.lists(st.lists(st.text(max_size=5), min_size=1, max_size=6), max_size=4).map(
            lambda rows: "\n".join("\t".join(row) for row in rows).encode("utf-8", "replace")
        ),
        st.binary(max_size=60).map(packed),
    ),
    name=st.sampled_from(["a.csv", "a.tsv", "a.parquet", "a.jsonl.zst", "a.tsv.gz", "a.csv.zst"]),
    data_format=st.sampled_from(["auto", "documents", "flan_cot", "mmlu", "completions"]),
)
def test_any_bytes_give_rows_or_a_data_error(tmp_path, data, name, data_format):
    (tmp_path / name).write_bytes(data)
    try:
        source = read(tmp_path / name, "document", data_format)
    except DataError:
        return
    assert source.rows_read == len(source.rows) + source.dropped.total()


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ";"), ("a.csv", "\t"), ("a.csv", "|"), ("a.tsv", ";")])
@pytest.mark.parametrize("format_", ["auto", "alpaca"])
def test_columns_parted_by_another_mark_are_told(tmp_path, name, mark, format_):
    (tmp_path / name).write_text(f"instruction{mark}output\na{mark}b\n")
    with pytest.raises(
        DataError, match=rf"{name}:1: the first row is one cell; .* parts no columns in \{name[1:]}"
    ):
        read(tmp_path / name, "conversation", format_)
