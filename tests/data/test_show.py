from __future__ import annotations

import io

from rich.console import Console

from aligner.data.rows import Pair, Prompt
from aligner.data.show import row_lines, show_rows, styled
from aligner.data.tokens import tokenize_conversation, tokenize_pairs, tokenize_prompts
from tests.data.chats import ORIGIN, chat
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def spans(text) -> dict[str, str]:
    return {text.plain[span.start : span.end]: str(span.style) for span in text.spans}


def test_supervised_tokens_are_coloured_and_control_tokens_visible():
    (line,) = row_lines(tokenize_conversation(chat("Hi [bold]", "Café 漢 🙂"), TOKENIZER, 99), TOKENIZER)
    assert spans(line)[" Café 漢 🙂"] == "green" and spans(line)["<|eos|>"] == "green reverse"
    assert line.plain.startswith("<|bos|>") and "Hi [bold]" in line.plain


def test_pairs_show_both_sides():
    (row,) = tokenize_pairs([Pair(ORIGIN, chat("Hi"), "yes", "no")], TOKENIZER, 99)
    chosen, rejected = row_lines(row, TOKENIZER)
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
    assert styled([], [], TOKENIZER).plain == ""
