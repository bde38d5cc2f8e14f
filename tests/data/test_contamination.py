"""Decontamination against brute force: sets of tuples of words, and nothing hashed."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner.data import contamination
from aligner.data.build import build_conversations, build_documents, build_training_prompts
from aligner.data.contamination import drop_contaminated
from aligner.data.readers import SourceRows
from aligner.data.rows import Conversation, Document, Origin, Pair, Prompt, Row, Turn
from aligner.errors import DataError
from aligner.recipe.clean import RowCleanSpec
from aligner.recipe.data import DataSpec, DecontaminateSpec, HoldoutSpec, PretrainDataSpec, SourceSpec
from aligner.recipe.ppo import PromptsSpec
from tests.data.chats import chat
from tests.tiny import tiny_tokenizer

NAMED = [SourceSpec(path="evaluation.jsonl")]


def rows_of(rows: list[Row], name: str = "t") -> SourceRows:
    return SourceRows(name, "messages", [], rows)


def talk(*texts: str, line: int = 1, system: str = "") -> Conversation:
    turns = chat(*texts)
    return Conversation(Origin("t", line), (Turn("system", system), *turns) if system else turns)


def by_definition(train: list[Conversation], evaluation: list[Conversation], n: int) -> set[int]:
    """Places of contaminated rows."""

    def words(row: Conversation, roles: tuple[str, ...]) -> tuple[str, ...]:
        said = " ".join(turn.content for turn in row.turns if turn.role in roles)
        return tuple(re.findall(r"[a-z]+", said.lower()))

    def grams(row: Conversation) -> set[tuple[str, ...]]:
        text = words(row, ("user", "assistant"))
        return {text[i : i + n] for i in range(len(text) - n + 1)}

    known = set().union(*(grams(row) for row in evaluation)) if evaluation else set()
    asked = {words(row, ("user",)) for row in evaluation} - {()}
    return {i for i, row in enumerate(train) if grams(row) & known or words(row, ("user",)) in asked}


words = st.lists(st.sampled_from(["a", "b", "C", "d,", "e!", "F."]), max_size=7).map(" ".join)
rows = st.lists(st.tuples(words, words), max_size=8)


@settings(max_examples=400)
@given(rows, rows, st.integers(1, 6), st.sampled_from([2, 1 << 20]))
def test_contaminated_rows_are_those_of_the_definition(train, evaluation, n, batch):
    given_rows = [talk(*texts, line=i) for i, texts in enumerate(train)]
    against = [talk(*texts) for texts in evaluation]
    source = rows_of(list(given_rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contamination, "BATCH_WORDS", batch)  # many batches, or one
        drop_contaminated([source], [rows_of(against)], DecontaminateSpec(against=NAMED, ngram=n))
    bad = by_definition(given_rows, against, n)
    assert [row.origin.line for row in source.rows] == [i for i in range(len(given_rows)) if i not in bad]
    assert source.dropped == ({"contaminated": len(bad)} if bad else {}) and source.rows_read == len(train)


def test_longer_random_texts_agree_too():
    rng = random.Random(0)
    alphabet = [f"{a}{b}" for a in "abcdefgh" for b in "abcdefgh"]
    train = [talk(" ".join(rng.choices(alphabet, k=60)), "x", line=i) for i in range(300)]
    against = [talk(" ".join(rng.choices(alphabet, k=40)), "x") for _ in range(40)]
    for place in range(0, 300, 30):  # some words of an evaluation in the middle of a row
        stolen = against[place % 40].turns[0].content.split()[5 : 5 + 3 + place // 30]
        text = " ".join([*rng.choices(alphabet, k=20), *stolen, *rng.choices(alphabet, k=20)])
        train[place] = talk(text.upper(), "y", line=place)
    bad = by_definition(train, against, 8)
    assert 4 <= len(bad) <= 10
    source = rows_of(list(train))
    drop_contaminated([source], [rows_of(against)], DecontaminateSpec(against=NAMED, ngram=8))
    assert {row.origin.line for row in source.rows} == set(range(300)) - bad


def test_what_a_system_turn_says_and_common_short_answers_are_no_leak():
    told = "You are a very helpful assistant that answers every question truly."
    evaluation = [talk("What is two and three?", "Yes.", system=told)]
    train = [
        talk("Is it late?", "Yes.", line=1, system=told),
        talk("what is two, and THREE", "No.", line=2, system="Other."),
    ]
    source = rows_of(list(train))
    drop_contaminated([source], [rows_of(evaluation)], DecontaminateSpec(against=NAMED, ngram=5))
    assert [row.origin.line for row in source.rows] == [1]
    alone = rows_of(list(train))
    drop_contaminated([alone], [rows_of(evaluation)], DecontaminateSpec(against=NAMED, ngram=None))
    assert [row.origin.line for row in alone.rows] == [1]


def test_all_kinds_of_rows_are_compared():
    text = "one two three four five six"
    held: list[Row] = [Prompt(Origin("e", 1), chat(text))]
    train: list[Row] = [
        Document(Origin("t", 1), text=f"zero {text} seven"),
        Pair(Origin("t", 2), chat("Say it"), "no", f"well: {text}"),
        Pair(Origin("t", 3), chat("Say it"), "no", "one two three"),
        Document(Origin("t", 4), turns=chat(text, "ok")),
        Prompt(Origin("t", 5), chat("one two three four five, seven")),
    ]
    source = rows_of(train)
    drop_contaminated([source], [rows_of(held)], DecontaminateSpec(against=NAMED, ngram=6))
    assert [row.origin.line for row in source.rows] == [3, 5]


def test_phrases_that_many_rows_share_may_be_spared_and_are_counted():
    phrase = "read this text and then say in one word what it is"
    evaluation = [talk(f"{phrase} apples", "x")]
    train = [talk(f"{phrase} number {'abcdefgh'[i]}", "y", line=i) for i in range(8)]
    train.append(talk("and then say in one word what it is apples", "z", line=8))
    spec = DecontaminateSpec(against=NAMED, ngram=9, ignore_above=7)
    source = rows_of(list(train))
    drop_contaminated([source], [rows_of(evaluation)], spec)
    assert [row.origin.line for row in source.rows] == list(
        range(8)
    )  # "... it is apples" stands in one row alone
    assert source.noted == {"shared_phrase": 8}
    strict = rows_of(list(train))
    drop_contaminated([strict], [rows_of(evaluation)], DecontaminateSpec(against=NAMED, ngram=9))
    assert not strict.rows and not strict.noted


def test_near_repeats_are_found_when_asked_for():
    rng = random.Random(3)
    text = [f"w{rng.randrange(10**6)}" for _ in range(200)]
    near = [word if i % 100 else "other" for i, word in enumerate(text)]
    evaluation, train = [talk(" ".join(text), "a")], [talk(" ".join(near), "a"), talk("Something else", "b")]
    for asked, dropped in ((True, {"near_contaminated": 1}), (False, {})):
        spec = DecontaminateSpec(against=NAMED, ngram=None, near_duplicates=asked)
        source = rows_of(list(train))
        drop_contaminated([source], [rows_of(evaluation)], spec)
        assert source.dropped == dropped


def test_an_overlap_can_be_an_error_that_names_both_rows():
    evaluation = [Conversation(Origin("e.jsonl", 3), chat("Who is Ann?", "x"))]
    train = [talk("Who is Tom?", "a", line=1), *(talk("who is ann", "b", line=i) for i in range(2, 10))]
    spec = DecontaminateSpec(against=NAMED, overlap="error")
    with pytest.raises(
        DataError, match=r"(?s)t:2: has something of e\.jsonl:3.*8 of 9 rows are contamin"
    ) as told:
        drop_contaminated([rows_of(list(train))], [rows_of(evaluation)], spec)
    assert len(told.value.problems) == 6
    clean = rows_of(train[:1])
    drop_contaminated([clean], [rows_of(evaluation)], spec)
    assert len(clean.rows) == 1


def write(path: Path, values: list[dict]) -> str:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return str(path)


def test_a_build_reads_evaluations_in_any_format_and_accounts_for_them(tmp_path):
    chats = write(
        tmp_path / "a.jsonl", [{"instruction": f"Add {i} and one.", "output": f"{i + 1}"} for i in range(9)]
    )
    asked = write(tmp_path / "prompts.jsonl", [{"prompt": "add 3, and ONE"}, {"prompt": "Nothing of this"}])
    solved = write(tmp_path / "solved.jsonl", [{"question": "Add 5 and one", "answer": "Well.\n#### 6"}])
    against = [SourceSpec(path=asked), SourceSpec(path=solved)]
    spec = DataSpec(train=[SourceSpec(path=chats)], decontaminate=DecontaminateSpec(against=against))
    built = build_conversations(spec, tiny_tokenizer(), seed=0)
    (train,) = built.report.train
    assert train.dropped == {"contaminated": 2} and train.rows_read == 9 and len(built.train) == 7
    assert [(one.format, one.rows_read) for one in built.report.against] == [("prompts", 2), ("gsm8k", 1)]
    plain = built.report.to_json()
    assert [len(one["sha256"]) for one in plain["against"]] == [64, 64]
    assert (
        "against"
        not in build_conversations(
            DataSpec(train=[SourceSpec(path=chats)]), tiny_tokenizer(), seed=0
        ).report.to_json()
    )


def test_held_out_rows_are_compared_when_asked(tmp_path):
    texts = [{"text": f"the quick brown fox number {i} jumps over the lazy dog"} for i in range(20)]
    spec = PretrainDataSpec(
        train=[SourceSpec(path=write(tmp_path / "a.jsonl", texts))],
        holdout=HoldoutSpec(rows=2),
        decontaminate=DecontaminateSpec(holdout=True, ngram=5),
    )
    with pytest.raises(DataError, match="no rows are left .*contaminated.*18"):
        build_documents(spec, seed=0)
    assert len(build_documents(spec.model_copy(update={"decontaminate": None}), seed=0).train) == 18


def test_prompts_of_ppo_are_cleaned_and_decontaminated(tmp_path):
    asked = [{"prompt": text} for text in ("Who is Ann?", "who is  ann?", "Call me@here.org", "Who is Tom?")]
    held = write(tmp_path / "e.jsonl", [{"prompt": "who is tom"}])
    spec = PromptsSpec(
        train=[SourceSpec(path=write(tmp_path / "p.jsonl", asked))],
        clean=RowCleanSpec(deduplicate=True, mask=["email"]),
        decontaminate=DecontaminateSpec(against=[SourceSpec(path=held)]),
    )
    built = build_training_prompts(spec, tiny_tokenizer(), seed=0)
    assert {row.prompt.turns[0].content for row in built.rows} == {"Who is Ann?", "Call <email>"}
    assert built.report.train[0].dropped == {"contaminated": 1, "duplicate": 1}
