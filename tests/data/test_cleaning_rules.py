"""Every rule has a text that breaks it and one that just does not, worked by hand from the papers' thresholds."""

from __future__ import annotations

from math import ceil
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aligner.data.clean import cleaner
from aligner.data.cleaning.c4 import LINES, cut_lines
from aligner.data.cleaning.measured import Measured
from aligner.data.cleaning.repetition import duplicate_ngram_share, duplicates, top_ngram_share
from aligner.data.cleaning.rules import GROUPS, RULES, line_rules, text_rules
from aligner.data.rows import Document
from aligner.recipe.clean import CleanRule, CleanSpec, RowCleanSpec
from tests.data.chats import ORIGIN, chat


def different(count: int, *, chars: int = 5) -> str:
    """So many different words of so many letters, by counting in letters."""
    letters = "abcdefghij"
    return " ".join("".join(letters[int(digit)] for digit in f"{i:0{chars}d}") for i in range(count))


def lines(*parts: tuple[str, int]) -> str:
    return "\n".join(line for line, count in parts for _ in range(count))


CASES = [
    # 50 to 100,000 words
    ("gopher_word_count", different(49), different(50)),
    ("gopher_word_count", "a " * 100_001, "a " * 100_000),
    # a mean of 3 to 10 characters: 29 over 10 is too few, 30 is not; 101 over 10 is too many, 100 is not
    ("gopher_word_length", "abc " * 9 + "ab", "abc " * 10),
    ("gopher_word_length", different(9, chars=10) + " abcdefghijk", different(10, chars=10)),
    # at most one hash sign to 10 words, and one ellipsis
    ("gopher_symbols", "# # " + different(17), "# # " + different(18)),
    ("gopher_symbols", different(18) + "... a…", different(19) + "... a…"),
    # 90% of lines: 10 of 11 are more, 9 of 10 are not
    ("gopher_bullets", lines(("• one", 5), ("- two", 5), ("-3 is a number", 1)), lines(("* one", 9), ("-3", 1))),
    # 30% of lines: 4 of 13 are more, 3 of 10 are not
    ("gopher_ellipsis_lines", lines(("on and on...", 2), ("and on…", 2), ("end.", 9)), lines(("on...", 3), ("end.", 7))),
    # 80% of words: 7 of 9 are fewer, 8 of 10 are not
    ("gopher_alphabetic", "a b c d e f g 1 2", "a b c d e f g h1 1 2"),
    # two different ones of eight words
    ("gopher_stop_words", "The cat, the dog, THE owl", "cat dog (with, that owl"),
    # 30% of lines, the first of its kind aside: 4 of 13 are more, 3 of 10 are not
    ("gopher_duplicate_lines", lines(("a", 5), *((w, 1) for w in "bcdefghi")), lines(("a", 4), *((w, 1) for w in "bcdefg"))),
    # the same of paragraphs; lines do not matter
    ("gopher_duplicate_paragraphs", "\n\n".join("aaaaabcdefghi"), "\n\n".join("aaaabcdefg")),
    ("gopher_duplicate_paragraphs", "a\nb\n\na\nb", "a\nb\na\nb"),
    # 20% of characters: 3 of 14 are more, 2 of 10 are not
    ("gopher_duplicate_line_chars", "abc\nabc\n12345678", "ab\nab\n123456"),
    ("gopher_duplicate_paragraph_chars", "abc\n\nabc\n\n12345678", "ab\n\nab\n\n123456"),
    # the top 2-gram "ab cd", twice, is 8 characters: of 39 they are more than 20%, of 40 they are not
    ("gopher_top_ngrams", f"ab cd {different(3)} {'z' * 16} ab cd", f"ab cd {different(3)} {'z' * 17} ab cd"),
    # the 5-gram "a b c d e" a second time is 5 characters: of 33 they are more than 15%, of 34 they are not
    ("gopher_duplicate_ngrams", f"a b c d e {'z' * 23} a b c d e", f"a b c d e {'z' * 24} a b c d e"),
    ("c4_lorem_ipsum", "Here: Lorem Ipsum dolor", "Lorem, ipsum"),
    ("c4_curly_brace", "f() { }", "f() ( ) }"),
    # 3 sentences
    ("c4_few_sentences", "One. Version 1.2 is two... and on", 'One! "Two?" (Three.)'),
    ("c4_few_sentences", "一。二！", "一。二！三？"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "broken", "kept"), CASES)
def test_each_rule_drops_what_is_past_its_threshold_and_keeps_what_is_on_it(name, broken, kept):
    assert RULES[name](Measured(broken)) and not RULES[name](Measured(kept))
    judge = cleaner(CleanSpec(min_chars=0, min_letter_share=0, rules=[name]))
    assert judge(Document(ORIGIN, broken)) == name and judge(Document(ORIGIN, kept)) is None


def test_every_rule_has_a_case_and_a_name_in_recipes():
    assert {name for name, _, _ in CASES} == set(RULES)
    assert set(get_args(CleanRule)) == {*RULES, *LINES, *GROUPS}


NOTHING_IS_TOO_LITTLE = {
    "gopher_word_count", "gopher_word_length", "gopher_alphabetic", "gopher_stop_words", "c4_few_sentences",
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_rules_stand_an_empty_text(name):
    assert RULES[name](Measured("")) is (name in NOTHING_IS_TOO_LITTLE)


def test_shares_of_repetition_by_hand():
    assert duplicates(["ab", "c", "ab", "ab"]) == (2 / 4, 4 / 7)
    # "a a" is there three times and lies over all of the four words, which count once
    assert top_ngram_share(["a", "a", "a", "a"], 2) == 1.0
    assert top_ngram_share(["a", "b", "c", "a", "b"], 2) == 4 / 5 and top_ngram_share(["a", "b", "c"], 2) == 0
    # "b cc" and "d e" are there twice each: the longer counts
    assert top_ngram_share(["b", "cc", "x", "d", "e", "y", "b", "cc", "z", "d", "e"], 2) == 6 / 13
    # words 3 to 6 repeat words 1 to 4: the 3-grams from 3 and from 4 on, which share two words
    assert duplicate_ngram_share(["a", "b", "a", "b", "a", "b"], 3) == 4 / 6
    assert duplicate_ngram_share(["a", "b"], 3) == 0


def said_twice(words: int, share: float, *, times: int) -> str:
    """A run of so many words of 10 letters, twice; `times` x its letters are that share of all, or a little less."""
    run = different(words, chars=10)
    filler = ceil(times * 10 * words / share) - 20 * words
    return f"{run} {'z' * filler} {run}"


@pytest.mark.parametrize(("n", "most"), [(2, 20), (3, 18), (4, 16)])
def test_the_top_ngram_of_each_length_has_its_threshold(n, most):
    over, on = (Measured(said_twice(n, share / 10_000, times=2)) for share in (most * 100 + 50, most * 100))
    assert RULES["gopher_top_ngrams"](over) and not RULES["gopher_top_ngrams"](on)


@pytest.mark.parametrize(("n", "most"), [(5, 15), (6, 14), (7, 13), (8, 12), (9, 11), (10, 10)])
def test_duplicate_ngrams_of_each_length_have_their_threshold(n, most):
    """A run of n words holds no longer n-gram, and the shorter ones in it may have a larger share."""
    over, under = (
        Measured(said_twice(n, share / 10_000, times=1)) for share in (most * 100 + 9, most * 100 - 9)
    )
    assert RULES["gopher_duplicate_ngrams"](over) and not RULES["gopher_duplicate_ngrams"](under)


@pytest.mark.parametrize("n", [2, 5, 10])
@given(words=st.lists(st.sampled_from(["a", "bb", "c"]), max_size=40))
def test_shares_are_those_of_a_slow_count(n, words):
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    marked = {i + k for i, gram in enumerate(grams) if gram in grams[:i] for k in range(n)}
    chars = sum(map(len, words)) or 1
    assert duplicate_ngram_share(words, n) == sum(len(words[i]) for i in marked) / chars
    assert 0 <= top_ngram_share(words, n) <= 1


def test_groups_mean_their_rules_and_a_rule_counts_once():
    assert list(text_rules(["gopher_stop_words", "gopher_quality"]))[:2] == [
        "gopher_stop_words",
        "gopher_word_count",
    ]
    assert len(text_rules(["gopher_quality", "gopher_repetition", "c4"])) == len(RULES)
    assert line_rules(["c4", "c4_short_lines"]) == list(LINES) and not line_rules(
        ["gopher_quality", "c4_lorem_ipsum"]
    )


PAGE = """Home

The first line stays here.
  The second line is "kept as well"
Four words are few.

Please switch on JavaScript for this page.
We use cookies, as our Privacy Policy says.
And no mark at its end"""


def test_lines_go_by_the_first_rule_they_break_and_the_rest_stays():
    text, cut = cut_lines(PAGE, list(LINES))
    assert text == 'The first line stays here.\n  The second line is "kept as well"'
    assert cut == {
        "c4_unpunctuated_lines": 2, "c4_short_lines": 1, "c4_javascript_lines": 1, "c4_policy_lines": 1,
    }  # fmt: skip
    assert cut_lines(PAGE, ["c4_javascript_lines"])[1] == {"c4_javascript_lines": 1}
    assert cut_lines("  Left as it is.\n\n\n\n ", list(LINES)[:1]) == ("  Left as it is.\n\n\n\n ", {})


@given(st.text(alphabet="ab .!\n", max_size=60))
def test_cutting_lines_twice_cuts_no_more(text):
    once, _ = cut_lines(text, list(LINES))
    assert cut_lines(once, list(LINES))[0] == once


def test_rules_of_lines_are_for_documents_alone():
    assert RowCleanSpec(rules=["c4"])
    with pytest.raises(ValidationError, match="c4_short_lines: cuts lines, for documents alone"):
        RowCleanSpec(rules=["c4_short_lines"])
    judge = cleaner(RowCleanSpec(rules=["c4"]))
    assert judge(Document(ORIGIN, turns=chat("One.", "Two. Three."))) is None
