"""Word lists, languages and repair: what they find, and what they say where something is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner.data.clean import clean_sources, cleaner
from aligner.data.cleaning.language import language_judge
from aligner.data.cleaning.measured import tokens
from aligner.data.cleaning.repair import repairer
from aligner.data.cleaning.words import listed, listed_share, read_words
from aligner.data.readers import read_source
from aligner.data.rows import Document
from aligner.errors import DataError
from aligner.recipe.clean import CleanSpec
from aligner.recipe.data import SourceSpec
from tests.data.chats import ORIGIN
from tests.data.real import real

LISTED = listed([("darn",), ("holy", "cow"), ("holy", "cow", "pat"), ("ば", "か"), ("*", "*", "k")])


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("Darn, that is bad", 1 / 4),
        ("darned undarn", 0),
        ("a HOLY  cow pat, b", 3 / 5),
        ("holy cow", 1),
        ("holy b cow", 0),
        ("お前はばかだ", 2 / 6),
        ("what the **k", 1),  # three tokens that are listed over three words
        ("", 0),
    ],
)
def test_whole_words_and_phrases_are_found(text, share):
    assert listed_share(text, LISTED) == pytest.approx(share)


def test_max_words_is_the_share_that_may_be_listed(tmp_path):
    path = tmp_path / "words"
    path.write_text("# a comment\n\nDarn\nholy cow\n")
    assert read_words(str(path)) == {"darn": [("darn",)], "holy": [("holy", "cow")]}
    for text, most, reason in (
        ("darn a b c", 0.0, "listed_words"),
        ("darn a b c", 0.25, None),
        ("darn a b", 0.25, "listed_words"),
        ("a b c", 0.0, None),
    ):
        spec = CleanSpec(min_chars=0, words=str(path), max_words=most)
        assert cleaner(spec)(Document(ORIGIN, text)) == reason


@pytest.mark.parametrize(
    ("content", "said"), [(b"\n# no\n", "has no words"), ("fü".encode("latin-1"), "is not UTF-8")]
)
def test_word_files_without_words_are_refused(tmp_path, content, said):
    (tmp_path / "words").write_bytes(content)
    with pytest.raises(DataError, match=said):
        cleaner(CleanSpec(words=str(tmp_path / "words")))
    with pytest.raises(DataError, match="no such data file"):
        cleaner(CleanSpec(words=str(tmp_path / "none")))


@given(st.text(max_size=60))
def test_tokens_lose_nothing_but_white_space(text):
    assert "".join(tokens(text)) == "".join(text.casefold().split())


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("schÃ¶n", "schön"),
        ("itâ€™s good", "it’s good"),
        ("gut ‚schön‘\nschÃ¶n\n\n", "gut ‚schön‘\nschön\n\n"),
    ],
)
def test_wrong_encodings_are_mended_line_by_line(broken, mended):
    assert repairer()(broken) == mended


@pytest.mark.parametrize("text", ["“curly” &amp; ﬁne", "ｆｕｌｌ ｗｉｄｔｈ", "a\r\nb", "Ã", "e\u0301"])
def test_repair_changes_nothing_but_encodings(text):
    assert repairer()(text) == text


@given(st.text(max_size=80))
def test_text_that_was_read_wrongly_is_mended_or_left_and_plain_text_stays(text):
    repair = repairer()
    ascii_text = text.encode("ascii", "ignore").decode()
    assert repair(ascii_text) == ascii_text


def test_languages_that_are_not_asked_for_go():
    judge = cleaner(CleanSpec(languages=["de", "fr"]))
    assert judge(Document(ORIGIN, "Das Haus steht am Ende der Straße und ist rot.")) is None
    assert judge(Document(ORIGIN, "La maison est au bout de la rue et elle est rouge.")) is None
    assert judge(Document(ORIGIN, "The house is at the end of the street.")) == "other_language"
    with pytest.raises(DataError, match='no language "eng" is known'):
        cleaner(CleanSpec(languages=["eng", "de"]))


@pytest.mark.parametrize(
    ("spec", "library"), [(CleanSpec(repair=True), "ftfy"), (CleanSpec(languages=["en"]), "py3langid")]
)
def test_a_missing_library_is_named_with_its_remedy(monkeypatch, spec, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DataError, match=rf"{library}\n    pip install 'aligner\[data\]'"):
        clean_sources([], spec)


UDHR = {
    "arb": "ar", "cmn_hans": "zh", "deu": "de", "eng": "en", "fra": "fr", "hin": "hi", "jpn": "ja", "kor": "ko",
    "rus": "ru", "spa": "es", "swh": "sw", "tha": "th", "vie": "vi",
}  # fmt: skip


@pytest.mark.parametrize("name", UDHR)
def test_paragraphs_of_thirteen_languages_are_told_apart(name):
    text = Path(real(f"udhr2/{name}.txt")).read_text(encoding="utf-8")
    paragraphs = [line for line in text.splitlines() if len(line) >= 40]
    is_other = language_judge([UDHR[name]])
    assert sum(map(is_other, paragraphs)) <= 0.04 * len(paragraphs) and len(paragraphs) >= 20
    others = language_judge([code for code in UDHR.values() if code != UDHR[name]])
    assert sum(map(others, paragraphs)) >= 0.96 * len(paragraphs)


def test_every_listed_word_of_public_lists_is_found_and_of_a_law_one_word():
    for name in ("de", "en", "fr", "ja", "zh"):
        path = Path(real(f"ldnoobw/{name}"))
        words = read_words(str(path))
        for line in path.read_text(encoding="utf-8").split("\n"):
            assert not line.strip() or listed_share(f"a {line} b", words) > 0
    law = Path(real("udhr2/eng.txt")).read_text(
        encoding="utf-8"
    )  # "... such as race, colour, sex, language ..."
    words = read_words(real("ldnoobw/en"))
    assert 0 < listed_share(law, words) < 0.001 and listed_share(law.replace("sex", "-"), words) == 0


def test_mojibake_made_of_real_text_is_mended():
    for name in ("deu", "fra", "spa"):
        text = Path(real(f"udhr2/{name}.txt")).read_text(encoding="utf-8")
        assert repairer()(text) == text
        assert repairer()(text.encode().decode("latin-1")) == text


def test_pages_of_c4_itself_pass_its_rules_and_most_pass_the_others():
    source = read_source(SourceSpec(path=real("llamafactory_demo/c4_demo.jsonl")), "document")
    assert source.rows_read == 200
    clean_sources([source], CleanSpec(rules=["c4"]))
    assert source.dropped == {"c4_few_sentences": 1} and not source.changed  # no line was left to cut
    clean_sources([source], CleanSpec(rules=["gopher_quality", "gopher_repetition"], languages=["en"]))
    assert 160 <= len(source.rows) < 199 and source.dropped["gopher_duplicate_ngrams"] > 0
