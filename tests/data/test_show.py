from __future__ import annotations

import io

from rich.console import Console

from aligner.data.pieces import shown_row, visible
from aligner.data.readers import SourceRows
from aligner.data.report import DataReport, report_source
from aligner.data.rows import Document, Dropped, Origin, Pair, Prompt
from aligner.data.show import show_documents, show_dropped, show_rows, styled
from aligner.data.tokens import tokenize_conversation, tokenize_pairs, tokenize_prompts
from tests.data.chats import ORIGIN, chat
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def spans(text) -> dict[str, str]:
    return {text.plain[span.start : span.end]: str(span.style) for span in text.spans}


def test_supervised_tokens_are_coloured_and_control_tokens_visible():
    row = tokenize_conversation(chat("Hi [bold]", "Café 漢 🙂"), TOKENIZER, 99)
    (line,) = map(styled, shown_row(row, TOKENIZER).lines)
    assert spans(line)[" Café 漢 🙂"] == "green" and spans(line)["<|eos|>"] == "green reverse"
    assert line.plain.startswith("<|bos|>") and "Hi [bold]" in line.plain


NASTY = "hi \x1b]0;owned\x07\x1b[2J\x00 \r\nok\x7f \x9b31m\x85x"
SEEN = "hi ␛]0;owned␇␛[2J␀ ␍\nok␡ ␛[31m␛Ex"


def test_a_terminal_obeys_nothing_that_stands_in_the_data():
    """ESC, BEL, NUL, CR, DEL, and of C1 CSI and NEL; file names and families may hold them, too."""
    origin, out = Origin("a\x1b[2J.jsonl", 3), io.StringIO()
    console = Console(file=out, width=200)
    rows = [
        tokenize_conversation(chat("Why?", NASTY), TOKENIZER, 400),
        *tokenize_prompts([Prompt(origin, chat(NASTY), "fam\x1b[2J")], TOKENIZER, 400),
    ]
    show_rows(rows, TOKENIZER, console=console)
    show_documents([Document(origin, NASTY)], TOKENIZER, console=console)
    source = SourceRows("b\x1b[2J", "text", [], [Document(origin, NASTY)])
    source.keep(lambda row: "late")
    show_dropped(DataReport(train=[report_source(source)]), 1, console=console)
    assert out.getvalue().count(SEEN) == 3 and visible("\t\n é漢") == "\t\n é漢"
    assert not set(map(chr, (*range(9), *range(11, 32), *range(127, 160)))) & set(out.getvalue())
    assert out.getvalue().count("a␛[2J.jsonl:3") == 3 and "fam␛[2J" in out.getvalue()


def test_pairs_show_both_sides():
    (row,) = tokenize_pairs([Pair(ORIGIN, chat("Hi"), "yes", "no")], TOKENIZER, 99)
    chosen, rejected = map(styled, shown_row(row, TOKENIZER).lines)
    assert spans(chosen)[" yes"] == "green" and spans(rejected)[" no"] == "red"


def test_printing_names_the_rows_and_breaks_on_no_markup():
    out = io.StringIO()
    rows = [
        tokenize_conversation(chat("[/red] a", "b"), TOKENIZER, 99),
        *tokenize_pairs([Pair(ORIGIN, chat("Hi"), "yes", "no", kind="manner")], TOKENIZER, 99),
        *tokenize_prompts([Prompt(ORIGIN, chat("Why?"), "fact")], TOKENIZER, 99),
    ]
    show_rows(rows, TOKENIZER, console=Console(file=out, width=100))
    assert (
        "[/red] a" in out.getvalue()
        and "manner" in out.getvalue()
        and "fact (rows.jsonl:7)" in out.getvalue()
    )
    assert styled([]).plain == ""


def test_dropped_rows_are_shown_by_source_and_reason_with_their_place():
    source = SourceRows("a [x].jsonl", "pairs", [])
    source.rows = [Pair(Origin("a.jsonl", i), chat("[/red] Hi"), f"yes {i}", "no\nnot") for i in range(1, 6)]
    source.drop(Dropped(Origin("a.jsonl", 9), "tie"), "tie")
    source.keep(lambda row: "too_long" if row.origin.line > 2 else None)
    report = DataReport(holdout=[report_source(source)])
    out = io.StringIO()
    show_dropped(report, 2, console=Console(file=out, width=100))
    shown = [line.rstrip("─ ") for line in out.getvalue().splitlines()]
    assert shown == [
        "holdout: a [x].jsonl, 4 of 6 rows dropped",
        "tie: 1",
        "  a.jsonl:9",
        "too_long: 3",
        "  a.jsonl:3  user: [/red] Hi chosen: yes 3 rejected: no not",
        "  a.jsonl:4  user: [/red] Hi chosen: yes 4 rejected: no not",
    ]
    source.drop(Document(Origin("a.jsonl", 7), "x" * 400), "late")
    show_dropped(DataReport(train=[report_source(source)]), 1, console=Console(file=out, width=100))
    assert f"  a.jsonl:7  {'x' * 300}...\n" in out.getvalue()
