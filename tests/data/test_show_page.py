"""The page of rows: what a parser finds on it is what was to be shown, and nothing in the data becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser

from aligner.data.pieces import shown_row
from aligner.data.readers import SourceRows
from aligner.data.report import DataReport, report_source
from aligner.data.rows import Document, Origin, Pair
from aligner.data.show_page import StageView, drops_of, render_page
from aligner.data.tokens import tokenize_conversation, tokenize_pairs
from aligner.recipe.plan import PlanRow, PlanTable
from tests.data.chats import ORIGIN, chat
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
NASTY = '</pre></span><script>alert("1")</script> & <img src=x onerror=y> \' "'
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags nest; keeps the text of each element by its tag and class."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, str]] = []
        self.found: list[tuple[str, str, str]] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append((tag, (given.get("class") or "").strip()))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop()[0] == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.found.append((*self.open[-1], data))

    def texts(self, tag: str, kind: str = "") -> list[str]:
        return [text for name, found, text in self.found if (name, found) == (tag, kind)]


def view(**changes: object) -> StageView:
    rows = [
        tokenize_conversation(chat(NASTY, "\n\nCafé 漢 <b>"), TOKENIZER, 400),
        *tokenize_pairs([Pair(ORIGIN, chat("Hi"), "yes <i>", "no", kind=NASTY)], TOKENIZER, 400),
    ]
    given = {
        "name": NASTY,
        "kind": "sft",
        "rows": [shown_row(row, TOKENIZER) for row in rows],
        "tables": [PlanTable(("source", "read"), ((NASTY, "7"),))],
        "templates": [PlanRow(NASTY, "1")],
        "drops": [],
    }
    return StageView(**(given | changes))


def test_the_page_shows_what_is_learnt_and_nothing_is_markup():
    page = Page(render_page(NASTY, [view()]))
    assert not page.tags & {"script", "img", "i"} and page.links == []
    learnt = page.texts("span", "learnt")
    assert any("Café 漢 <b>" in text for text in learnt) and any("yes <i>" in text for text in learnt)
    assert any(text.strip() == "no" for text in page.texts("span", "rejected"))
    assert TOKENIZER.eos_token in page.texts("span", "learnt control")
    assert f"{TOKENIZER.bos_token}<|user|>" in page.texts("span", "control")
    assert any(NASTY in text for text in page.texts("span"))  # the question, whole
    assert page.texts("td") == [NASTY] and page.texts("td", "n") == ["7"]


def test_pieces_on_the_page_are_the_row_as_the_model_sees_it():
    row = tokenize_conversation(chat("a\n\n b", "\n c\n"), TOKENIZER, 400)
    page = Page(render_page("r.yaml", [view(rows=[shown_row(row, TOKENIZER)])]))
    spans = [text for name, kind, text in page.found if name == "span" and "soft" not in kind]
    legend = 3  # learnt, rejected, control token: in the head of the page
    assert "".join(spans[legend:]) == TOKENIZER.decode(row.input_ids)


def test_control_characters_are_shown_since_a_page_cannot_hold_them():
    row = tokenize_conversation(chat("a\x00b", "c\x1b[2J\x9b\r\n\td"), TOKENIZER, 400)
    source = SourceRows("x\x00", "text", [], [Document(Origin("f\x1b.txt", 1), "e\x00f\x7f")])
    source.keep(lambda row: "late")
    drops = drops_of(DataReport(train=[report_source(source)]), 2)
    page = render_page("r\x00.yaml", [view(rows=[shown_row(row, TOKENIZER)], drops=drops)])
    assert not set(map(chr, (*range(9), *range(11, 32), *range(127, 160)))) & set(page)
    for shown in ("a␀b", "c␛[2J␛[␍\n\td", "x␀: 1 of 1 rows", "f␛.txt:1", "e␀f␡", "r␀.yaml"):
        assert shown in page, shown


def test_dropped_rows_have_reason_place_and_text():
    source = SourceRows(NASTY, "text", [])
    source.rows = [Document(Origin("a <b>.txt", line), NASTY) for line in range(1, 6)]
    source.keep(lambda row: "too_long" if row.origin.line > 2 else None)
    report = DataReport(holdout=[report_source(source)])
    (drops,) = drops_of(report, 2)
    page = Page(render_page("r.yaml", [view(drops=[drops])]))
    assert page.texts("summary") == [f"holdout {NASTY}: 3 of 5 rows"]
    assert page.texts("code") == ["a <b>.txt:3", "a <b>.txt:4"]
    assert [text.strip() for text in page.texts("li") if text.strip()] == [NASTY, NASTY]
    kept = SourceRows("b", "text", [])
    assert drops_of(DataReport(train=[report_source(kept)]), 2) == []
