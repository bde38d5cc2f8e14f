from __future__ import annotations

import random
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner.data.clean import cleaner
from aligner.data.cleaning.measured import spoken_words
from aligner.data.cleaning.near import (
    BAND_ROWS,
    BANDS,
    HASHES,
    NearDuplicates,
    _WordHashes,
    estimated_similarity,
    shingles,
    signature,
)
from aligner.data.readers import read_source
from aligner.data.rows import Document
from aligner.recipe.clean import CleanSpec
from aligner.recipe.data import SourceSpec
from tests.data.chats import ORIGIN
from tests.data.real import real


def words(count: int, *, seed: int) -> list[str]:
    return [f"w{number}" for number in random.Random(seed).choices(range(10**6), k=count)]


def true_similarity(one: list[str], other: list[str]) -> float:
    """Jaccard similarity of the sets of 5-grams, by brute force."""
    a, b = ({tuple(text[i : i + 5]) for i in range(len(text) - 4)} for text in (one, other))
    return len(a & b) / len(a | b)


def changed(text: list[str], share: float, *, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [f"new{seed}x{i}" if rng.random() < share else word for i, word in enumerate(text)]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.03, 0.1, 0.3])
def test_the_estimate_is_the_true_similarity_within_its_error(share):
    errors = []
    for seed in range(10):
        one = words(300, seed=seed)
        other = changed(one, share, seed=seed)
        true = true_similarity(one, other)
        errors.append(estimated_similarity(signature(" ".join(one)), signature(" ".join(other))) - true)
        assert abs(errors[-1]) < 4 * (true * (1 - true) / HASHES) ** 0.5 + 1e-9  # four standard errors
    assert abs(sum(errors) / len(errors)) < 0.05


def test_texts_meet_in_a_band_as_often_as_their_similarity_says():
    assert (BANDS, BAND_ROWS, HASHES) == (14, 8, 112)
    met, expected = 0, 0.0
    for seed in range(150):
        one = words(200, seed=seed)
        other = changed(one, 0.04, seed=seed)
        near = NearDuplicates()
        assert not near.seen(" ".join(one))
        met += near.seen(" ".join(other))
        expected += 1 - (1 - true_similarity(one, other) ** BAND_ROWS) ** BANDS
    assert 30 < expected < 120 and abs(met - expected) < 25


def test_shingles_are_runs_of_five_words_case_and_punctuation_aside():
    assert len(shingles("a b c d e f g")) == 3 and len(shingles("a b c d e a b c d e")) == 5
    assert (shingles("One, two (three) four FIVE!") == shingles("one two three four five")).all()
    assert len(shingles("one two")) == 1 and not len(shingles("?!")) and signature("?!") is None
    assert len(shingles("六個漢字的句子")) == 3  # where no spaces part words, a character is one


def mixed(value: int) -> int:
    """The end of splitmix64, in whole numbers."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return value ^ value >> 31


def test_hashes_are_the_same_on_every_machine():
    value = 0
    for word in ("one", "two", "three", "four", "five"):
        value = mixed((value + int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "big")) % 2**64)
    assert shingles("one two three four five").tolist() == [value]
    seeds = [mixed(0x9E3779B97F4A7C15 * number % 2**64) for number in range(1, HASHES + 1)]
    assert signature("one two three four five").tolist() == [mixed(value ^ seed) for seed in seeds]
    long = " ".join(words(700, seed=4))  # more runs of words than are hashed at once
    runs = shingles(long).tolist()
    assert len(runs) == 696 and signature(long).tolist() == [
        min(mixed(run ^ s) for run in runs) for s in seeds
    ]


@given(st.lists(st.text(alphabet="abc .", max_size=30), max_size=6))
def test_the_first_is_never_dropped_and_equal_texts_always_are(texts):
    near = NearDuplicates()
    if texts:
        assert not near.seen(texts[0])
    for text in texts:
        near.seen(text)
    assert all(near.seen(text) for text in texts if any(map(str.isalnum, text)))


def test_near_duplicates_are_dropped_and_exact_ones_before_them():
    base = words(400, seed=1)
    judge = cleaner(CleanSpec(near_duplicates=True, min_letter_share=0))
    given = [base, changed(base, 0.01, seed=1), [*base], words(400, seed=2), base[:200] + words(200, seed=3)]
    reasons = [judge(Document(ORIGIN, " ".join(text))) for text in given]
    assert reasons == [None, "near_duplicate", "duplicate", None, None]


def test_what_is_dropped_is_what_exact_similarity_says():
    """All pairs of 300 texts by brute force: what is surely near is found, and nothing unlike is dropped."""
    rng, texts = random.Random(0), []
    for number in range(300):
        copied = texts[rng.randrange(len(texts))] if number % 3 == 2 else None
        share = rng.choice([0.0, 0.005, 0.01, 0.03, 0.1, 0.3])
        texts.append(
            changed(copied, share, seed=number) if copied else words(rng.randint(60, 400), seed=number)
        )
    near = NearDuplicates()
    dropped = {number for number, text in enumerate(texts) if near.seen(" ".join(text))}
    nearest = [
        max((true_similarity(text, other) for other in texts[:number]), default=0.0)
        for number, text in enumerate(texts)
    ]
    sure = {number for number, similarity in enumerate(nearest) if similarity >= 0.9}
    assert len(sure) > 30 and len(sure & dropped) / len(sure) >= 0.97  # recall; 99.9% are expected
    wrong = [number for number in dropped if nearest[number] < 0.5]
    assert len(dropped) > 40 and wrong == []  # precision


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?!",
        "A b, c-d_e _f 1.5 don't",
        "".join(map(chr, range(128))),
        "x\x1cy\x85z",
        "one  two\tthree\nfour",
    ],
)
def test_ascii_words_are_those_of_the_expression(text):
    beyond = spoken_words(text + " é")  # one letter beyond ASCII: by the expression
    assert [*spoken_words(text), "é"] == beyond


def test_words_whose_hashes_are_forgotten_have_the_same_ones_again(monkeypatch):
    text = " ".join(words(300, seed=3))
    expected = signature(text)
    monkeypatch.setattr("aligner.data.cleaning.near._KNOWN_WORDS", 7)
    known = _WordHashes()
    monkeypatch.setattr("aligner.data.cleaning.near._word_hashes", known)
    assert (signature(text) == expected).all() and 0 < len(known) <= 7


ALICE, AUSTEN = "gutenberg/Alice-s-Adventures-in-Wonderland_11", "gutenberg/Pride-and-Prejudice_1342"


@pytest.mark.parametrize(
    ("one", "other"),
    [(f"{ALICE}/11.txt", f"{ALICE}/old/alice30.txt"), (f"{AUSTEN}/1342.txt", f"{AUSTEN}/old/pandp10.txt")],
)
def test_older_editions_of_a_book_are_found_and_other_books_are_not(one, other):
    paths = [one, other, "gutenberg/The-Time-Machine_35/35.txt"]
    books = [
        "\n\n".join(row.text for row in read_source(SourceSpec(path=real(path)), "document").rows)
        for path in paths
    ]
    judge = cleaner(CleanSpec(near_duplicates=True, max_chars=None))
    assert [judge(Document(ORIGIN, book)) for book in books] == [None, "near_duplicate", None]
