from __future__ import annotations

import pytest

from aligner.data.clean import clean_sources, cleaner, letter_share
from aligner.data.keys import normalised_hash
from aligner.data.readers import MAX_SAMPLES, SourceRows
from aligner.data.rows import Conversation, Document, Origin, Pair, Prompt, Row, row_contents, with_contents
from aligner.recipe.clean import CleanSpec, RowCleanSpec
from tests.data.chats import chat

ORIGIN = Origin("a", 1)


def doc(text: str) -> Document:
    return Document(ORIGIN, text=text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("short", "too_short"),
        ("x" * 101, "too_long"),
        ("1234 5678 9012", "few_letters"),
        ("Good text here.", None),
    ],
)
def test_each_filter_names_its_reason(text, reason):
    assert cleaner(CleanSpec(min_chars=10, max_chars=100))(doc(text)) == reason


def test_the_limits_themselves_pass():
    judge = cleaner(CleanSpec(min_chars=5, max_chars=10, min_letter_share=0.5))
    assert [judge(doc(text)) for text in ("abcde", "a" * 10, "abc 1234")] == [None, None, None]
    assert judge(doc("abc12345")) == "few_letters"


def test_letter_share_by_hand():
    assert letter_share("ab 1") == 0.75 and letter_share("") == 0 and letter_share("é漢\n") == 1


def test_exact_repeats_are_found_whitespace_and_case_aside():
    judge = cleaner(CleanSpec(min_chars=0))
    assert judge(doc("The  Cat\nis red")) is None
    assert judge(doc("the cat is red ")) == "duplicate"
    assert judge(doc("the cat is red.")) is None
    assert cleaner(CleanSpec(min_chars=0, deduplicate=False))(doc("x x")) is None
    assert normalised_hash("A b") == normalised_hash("a\tB") != normalised_hash("ab")


def test_conversations_are_judged_by_their_contents():
    judge = cleaner(CleanSpec(min_chars=4))
    assert judge(Document(ORIGIN, turns=chat("a", "b"))) == "too_short"
    assert judge(Document(ORIGIN, turns=chat("hello", "there"))) is None
    assert judge(Document(ORIGIN, turns=chat("hello", "there"))) == "duplicate"
    assert judge(Document(ORIGIN, turns=chat("hello", "you"))) is None


def rows_of(*rows: Row) -> SourceRows:
    return SourceRows("a", "documents", [], list(rows))


def test_the_steps_come_in_their_order():
    """Repaired before masked before filtered before compared: each of these rows needs the steps in this order."""
    source = rows_of(
        doc("Grüße an alle, und zwar sehr schöne: me@here.org"),
        doc("GrÃ¼ÃŸe an alle, und zwar sehr schÃ¶ne: you@there.org"),  # equal when it is repaired and masked
        doc("me.and.my.very.long.name@a.very.long.name.org"),  # too short when it is masked
        doc("gruesse an keinen, und"),
    )
    clean_sources([source], CleanSpec(min_chars=15, repair=True, mask=["email"]))
    assert [row.text for row in source.rows] == [
        "Grüße an alle, und zwar sehr schöne: <email>",
        "gruesse an keinen, und",
    ]
    assert source.dropped == {"duplicate": 1, "too_short": 1}
    assert source.changed == {"repaired": 1, "masked_email": 3}
    source = rows_of(
        doc("cardâ€œ4111111111111111 is lost for good")
    )  # the broken quotation mark ends in a letter
    clean_sources([source], CleanSpec(repair=True, mask=["card"]))
    assert [row.text for row in source.rows] == ["card“<card> is lost for good"]
    # what is compared is what was filtered: the first of two equal rows counts only where it stays
    judge = cleaner(CleanSpec(min_chars=0, rules=["c4_curly_brace"], near_duplicates=True))
    assert [judge(doc(text)) for text in ("{a", "{a", "a", "a", "a.")] == [
        "c4_curly_brace", "c4_curly_brace", None, "duplicate", "near_duplicate",
    ]  # fmt: skip


def test_lines_are_cut_out_of_plain_documents_alone():
    text = "This line is long enough.\nHome\nAnd so is this line here."
    source = rows_of(doc(text), doc("Home\nNews"), Document(ORIGIN, turns=chat("Home", "News")))
    clean_sources([source], CleanSpec(min_chars=0, rules=["c4_short_lines"]))
    assert [row_contents(row) for row in source.rows] == [
        ["This line is long enough.\nAnd so is this line here."],
        ["Home", "News"],
    ]
    assert source.dropped == {"no_lines_left": 1} and source.changed == {"c4_short_lines": 3}


def test_every_content_of_a_row_is_changed_and_nothing_else():
    rows = [
        doc("a"),
        Document(ORIGIN, turns=chat("a", "b", system="s")),
        Conversation(ORIGIN, chat("a", "b"), "f"),
        Pair(ORIGIN, chat("a", "b", "c"), "d", "e", 0.5, "k", 2.0),
        Prompt(ORIGIN, chat("a"), "f", {"kind": "exact"}),
    ]
    for row in rows:
        assert with_contents(row, lambda text: text) == row
        assert row_contents(with_contents(row, str.upper)) == [text.upper() for text in row_contents(row)]


def test_conversations_and_pairs_are_judged_by_all_they_hold():
    judge = cleaner(RowCleanSpec(min_chars=5, max_chars=9, rules=["c4_curly_brace"]))
    pair = Pair(ORIGIN, chat("abc"), "de", "f")  # with two line ends: 8
    assert judge(pair) is None and judge(Pair(ORIGIN, chat("abc"), "de", "fgh")) == "too_long"
    assert judge(Conversation(ORIGIN, chat("a", "b"))) == "too_short"
    assert judge(Conversation(ORIGIN, chat("abc", "{"))) == "c4_curly_brace"


def test_answers_that_differ_in_what_is_masked_alone_are_no_pair():
    source = rows_of(
        Pair(ORIGIN, chat("Who?"), "me@here.org", "you@here.org"),
        Pair(ORIGIN, chat("Who?"), "I", "you@here.org"),
    )
    clean_sources([source], RowCleanSpec(mask=["email"]))
    assert source.dropped == {"answers_equal": 1} and source.changed == {"masked_email": 3}
    assert [row.rejected for row in source.rows] == ["<email>"]


def test_nothing_happens_to_rows_by_default():
    given = [
        Conversation(ORIGIN, chat("", "{schÃ¶n} me@here.org")),
        Conversation(ORIGIN, chat("", "{schÃ¶n} me@here.org")),
        Pair(ORIGIN, chat("1"), "2" * 2_000_000, "3"),
    ]
    source = rows_of(*given)
    clean_sources([source], RowCleanSpec())
    assert source.rows == given and not source.dropped and not source.changed


def test_a_few_dropped_rows_of_each_reason_are_kept_to_look_at():
    given = [doc(f"{i}") for i in range(30)]
    source = rows_of(*given, doc("x" * 30))
    clean_sources([source], CleanSpec(max_chars=20))
    assert source.dropped == {"too_short": 30, "too_long": 1}
    assert source.samples == {"too_short": given[:MAX_SAMPLES], "too_long": [doc("x" * 30)]}
