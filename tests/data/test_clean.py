from __future__ import annotations

import pytest

from aligner.data.clean import cleaner, letter_share, normalised_hash
from aligner.data.rows import Document, Origin
from aligner.recipe.data import CleanSpec
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
