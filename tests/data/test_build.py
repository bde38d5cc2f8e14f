from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from aligner.data.build import build_conversations, build_documents, build_pairs, build_training_prompts
from aligner.data.rows import Document
from aligner.data.tokens import documents_ids
from aligner.errors import DataError
from aligner.recipe.clean import CleanSpec, RowCleanSpec
from aligner.recipe.data import (
    CurriculumSpec,
    DataSpec,
    HoldoutSpec,
    PairDataSpec,
    PretrainDataSpec,
    SourceSpec,
)
from aligner.recipe.ppo import PromptsSpec
from tests.data.chats import ORIGIN, THINKING
from tests.tiny import tiny_tokenizer


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def alpaca(count: int, *, word: str = "Add", answer: str = "ok") -> list[dict]:
    return [{"instruction": f"{word} {i}.", "input": "", "output": f"{answer} {i}"} for i in range(count)]


def pairs(count: int) -> list[dict]:
    return [
        {"prompt": f"Say {i}", "chosen": f"good {i}", "rejected": f"bad {i}", "kind": "k"}
        for i in range(count)
    ]


def check_accounts(report) -> None:
    for source in (*report.train, *report.curriculum, *report.holdout):
        assert source.rows_read == source.rows_used + sum(source.dropped.values())
        assert len(source.sha256) == 64
    json.dumps(report.to_json())


def test_rows_whose_earlier_answers_are_not_learnt_are_counted(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = THINKING
    earlier = ["no", "<think>r</think>yes", "<think>s</think>yes"]
    rows = [{"instruction": "b", "output": "c", "history": [["a", answer]]} for answer in earlier]
    spec = DataSpec(train=[SourceSpec(path=write(tmp_path / "a.jsonl", rows))])
    (source,) = build_conversations(spec, tokenizer, seed=0).report.train
    assert source.rows_used == 3 and source.noted == {"earlier_answers_not_learnt": 2}


def test_a_mixture_of_conversations_with_cap_weight_and_holdout(tmp_path):
    tokenizer = tiny_tokenizer()
    a = write(tmp_path / "a.jsonl", [*alpaca(40), {"instruction": "x", "output": ""}])
    b = write(tmp_path / "b.jsonl", alpaca(10, word="Copy"))
    spec = DataSpec(
        train=[SourceSpec(path=a, cap=20), SourceSpec(path=b, weight=2.0)], holdout=HoldoutSpec(rows=10)
    )
    built = build_conversations(spec, tokenizer, seed=5)
    check_accounts(built.report)
    first, second = built.report.train
    assert first.rows_used == 20 and first.dropped["empty_answer"] == 1 and first.rows_read == 41
    assert second.rows_per_epoch == 2 * second.rows_used
    assert len(built.train) == first.rows_per_epoch + second.rows_per_epoch and len(built.holdout) == 10
    assert not {tuple(row.input_ids) for row in built.train} & {tuple(row.input_ids) for row in built.holdout}
    assert sum(len(row.input_ids) for row in built.train) == first.tokens + second.tokens
    assert (
        sum(sum(row.supervised) for row in built.train) == first.supervised_tokens + second.supervised_tokens
    )
    assert {row.family for row in built.train} == {"alpaca"}
    again = build_conversations(spec, tokenizer, seed=5)
    assert again == built and build_conversations(spec, tokenizer, seed=6).train != built.train


def test_rows_of_held_out_sources_are_never_trained_on(tmp_path):
    train = write(tmp_path / "a.jsonl", alpaca(10))
    held = write(tmp_path / "h.jsonl", [{"instruction": "add  3.", "output": "OK 3"}, *alpaca(1, word="New")])
    spec = DataSpec(train=[SourceSpec(path=train)], holdout=HoldoutSpec(sources=[SourceSpec(path=held)]))
    built = build_conversations(spec, tiny_tokenizer(), seed=0)
    check_accounts(built.report)
    assert (len(built.train), len(built.holdout)) == (9, 2) and built.report.train[0].dropped == {
        "in_holdout": 1
    }


@pytest.mark.parametrize("measured", [0, 3])
def test_families_are_held_out_and_their_equals_are_not_trained_on(tmp_path, measured):
    rows = [*alpaca(10), *({**row, "family": "sums"} for row in alpaca(6, word="Sum"))]
    rows.append(alpaca(1, word="sum")[0])  # says the same as a held-out row, and is of another family
    spec = DataSpec(
        train=[SourceSpec(path=write(tmp_path / "a.jsonl", rows))],
        holdout=HoldoutSpec(families=["sums"], rows=measured),
    )
    built = build_conversations(spec, tiny_tokenizer(), seed=0)
    check_accounts(built.report)
    assert built.report.train[0].dropped == {"held_out": 6, "in_holdout": 1} and len(built.train) == 10
    assert {row.family for row in built.train} == {"alpaca"} and {row.family for row in built.holdout} == {
        "sums"
    }
    assert len(built.holdout) == (measured or 6)
    assert built.report.holdout[0].dropped == ({"not_measured": 3} if measured else {})


def test_plain_documents_of_a_withheld_family_are_not_learnt_either(tmp_path):
    rows = [*alpaca(10), *({**row, "family": "sums"} for row in alpaca(6, word="Sum"))]
    sums = write(tmp_path / "sums.jsonl", [{"text": f"How to add {i}."} for i in range(4)])
    other = write(tmp_path / "other.jsonl", [{"text": f"The sea is {i} deep."} for i in range(3)])
    chats = SourceSpec(path=write(tmp_path / "a.jsonl", rows))
    train = [chats, SourceSpec(path=[sums, other], format="documents")]
    spec = DataSpec(train=train, holdout=HoldoutSpec(families=["sums"]))
    built = build_conversations(spec, tiny_tokenizer(), seed=0)
    check_accounts(built.report)
    assert built.report.train[1].dropped == {"in_holdout": 4} and built.report.train[1].rows_used == 3
    assert len(built.holdout) == 6 and not any(row.family == "document" for row in built.holdout)


def test_documents_in_instruction_tuning_are_learnt_whole(tmp_path):
    chats = write(tmp_path / "a.jsonl", [*alpaca(19), {"instruction": "a", "output": "word " * 200}])
    text = "before <|eos|> after. " + "The cat of Mia is red. " * 30
    documents = write(tmp_path / "d.jsonl", [{"text": text}, *({"text": f"Short {i}."} for i in range(80))])
    train = [SourceSpec(path=chats), SourceSpec(path=documents, format="documents", weight=2.0)]
    spec = DataSpec(train=train, holdout=HoldoutSpec(rows=5), max_length=64, cut_answers=0.05)
    tokenizer = tiny_tokenizer()
    built = build_conversations(spec, tokenizer, seed=0)
    check_accounts(built.report)
    talks, plain = built.report.train
    assert (
        plain.rows_read == plain.rows_used == 81 and talks.dropped["held_out"] == 5
    )  # documents are not measured
    whole = documents_ids([Document(ORIGIN, text=text.strip())], tokenizer)[0]
    pieces = -(-(len(whole) - 1) // 63)
    assert plain.rows_per_epoch == 2 * (80 + pieces)
    learnt = [row for row in built.train if row.family == "document"]
    assert len(learnt) == 2 * (80 + pieces) and max(len(row.input_ids) for row in learnt) == 64
    ids = {tuple(row.input_ids) for row in learnt}
    assert tuple(tokenizer.encode("Short 7.", add_special_tokens=False)) == next(
        row[1:-1] for row in ids if tokenizer.decode(row[1:-1]) == "Short 7."
    )
    assert all(
        row[-1] == tokenizer.eos_token_id for row in ids if row[0] == tokenizer.bos_token_id and len(row) < 64
    )
    too_strict = spec.model_copy(update={"cut_answers": 0.04})  # 1 of 20 answers; documents have none
    with pytest.raises(DataError, match="1 of 20 rows would have their answer cut"):
        build_conversations(too_strict, tokenizer, seed=0)


def test_documents_are_known_by_their_format_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("The cat of Mia is red.")
    with pytest.raises(DataError, match='format "text" does not give conversation rows'):
        build_conversations(DataSpec(train=[SourceSpec(path=str(path))]), tiny_tokenizer(), seed=0)
    held = HoldoutSpec(sources=[SourceSpec(path=str(path), format="text")])
    chats = SourceSpec(path=write(tmp_path / "a.jsonl", alpaca(3)))
    with pytest.raises(DataError, match='format "text" does not give conversation rows'):
        build_conversations(DataSpec(train=[chats], holdout=held), tiny_tokenizer(), seed=0)


def test_control_tokens_in_text_are_refused_by_name(tmp_path):
    rows = [
        *alpaca(2),
        {"instruction": "a<|eos|>", "output": "b"},
        {"instruction": "a", "output": "<|user|>"},
    ]
    spec = DataSpec(train=[SourceSpec(path=write(tmp_path / "a.jsonl", rows))])
    built = build_conversations(spec, tiny_tokenizer(), seed=0)
    assert built.report.train[0].dropped == {"control_token_in_text": 2} and len(built.train) == 2


def test_too_many_cut_answers_are_an_error_and_a_few_are_counted(tmp_path):
    rows = [*alpaca(19), {"instruction": "a", "output": "word " * 200}]
    source = [SourceSpec(path=write(tmp_path / "a.jsonl", rows))]
    with pytest.raises(DataError, match="1 of 20 rows would have their answer cut at 64 tokens"):
        build_conversations(DataSpec(train=source, max_length=64), tiny_tokenizer(), seed=0)
    built = build_conversations(
        DataSpec(train=source, max_length=64, cut_answers=0.05), tiny_tokenizer(), seed=0
    )
    assert built.report.train[0].answers_cut == 1 == sum(row.answer_cut for row in built.train)
    assert max(len(row.input_ids) for row in built.train) == 64


def test_pairs_and_rankings_mix(tmp_path):
    a = write(tmp_path / "a.jsonl", pairs(20))
    b = write(tmp_path / "b.jsonl", [{"prompt": "Rank", "answers": ["a", "b", "c"]}])
    spec = PairDataSpec(train=[SourceSpec(path=a), SourceSpec(path=b)], holdout=HoldoutSpec(rows=4))
    built = build_pairs(spec, tiny_tokenizer(), seed=1)
    check_accounts(built.report)
    assert len(built.holdout) == 4 and sum(r.rows_used for r in built.report.train) == len(built.train)
    held = {tuple(row.chosen_ids[: row.prompt_length]) for row in built.holdout}
    assert not held & {tuple(row.chosen_ids[: row.prompt_length]) for row in built.train}


def test_prompts_come_shuffled_cut_and_without_withheld_ones(tmp_path):
    path = write(
        tmp_path / "p.jsonl", [{"prompt": f"Question {i} " + "word " * i, "family": "f"} for i in range(30)]
    )
    held = write(tmp_path / "h.jsonl", [{"prompt": "question 0", "gold": {"kind": "unsafe", "answers": []}}])
    spec = PromptsSpec(train=[SourceSpec(path=path)], holdout=[SourceSpec(path=held)], max_prompt_tokens=40)
    built = build_training_prompts(spec, tiny_tokenizer(), seed=0)
    check_accounts(built.report)
    order = [row.prompt.origin.line for row in built.rows]
    assert sorted(order) == list(range(2, 31)) != order
    assert max(len(row.input_ids) for row in built.rows) == 40
    assert built.report.train[0].prompts_cut == sum(row.prompt_cut for row in built.rows) > 0


def test_documents_are_cleaned_over_all_sources_and_mixed(tmp_path):
    (tmp_path / "a.txt").write_text("The cat is red and lives here.")
    rows = [
        {"text": "the cat is red  and lives here."},
        {"text": "short"},
        {"text": "A good long text about a dog."},
    ]
    spec = PretrainDataSpec(
        train=[
            SourceSpec(path=str(tmp_path / "a.txt")),
            SourceSpec(path=write(tmp_path / "b.jsonl", rows), weight=3.0),
        ],
        clean=CleanSpec(min_chars=10),
    )
    built = build_documents(spec, seed=0)
    check_accounts(built.report)
    assert built.report.train[1].dropped == {"duplicate": 1, "too_short": 1}
    assert (
        sorted(document.text[:5] for document in built.train) == ["A goo"] * 3 + ["The c"]
        and not built.holdout
    )


def texts(count: int, *, word: str) -> list[dict]:
    return [{"text": f"The {word} says the word {i} to the people."} for i in range(count)]


@pytest.mark.parametrize("own_files", [True, False])
def test_a_curriculum_is_cleaned_counted_and_without_what_is_held_out(tmp_path, own_files):
    held = write(tmp_path / "h.jsonl", texts(3, word="owl"))
    train = write(tmp_path / "a.jsonl", texts(40, word="cat"))
    rows = [*texts(40, word="cat"), *texts(6, word="owl"), texts(1, word="dog")[0], {"text": "short"}]
    early = SourceSpec(path=write(tmp_path / "e.jsonl", [*rows, rows[-2]]))
    built = build_documents(
        PretrainDataSpec(
            train=[SourceSpec(path=train)],
            curriculum=CurriculumSpec(sources=[early]),
            holdout=HoldoutSpec(sources=[SourceSpec(path=held)]) if own_files else HoldoutSpec(rows=3),
        ),
        seed=0,
    )
    check_accounts(built.report)
    (report,) = built.report.curriculum
    assert report.dropped == {"duplicate": 1, "in_holdout": 3, "too_short": 1}
    assert (report.rows_read, report.rows_used) == (49, 44) and len(built.curriculum) == 44
    withheld = {document.text for document in built.holdout}
    assert len(withheld) == 3
    assert not withheld & {document.text for document in (*built.curriculum, *built.train)}
    assert {document.text for document in built.curriculum} >= {document.text for document in built.train}
    assert not any("dog" in document.text or "owl" in document.text for document in built.train)


def test_an_empty_curriculum_is_an_error(tmp_path):
    train = SourceSpec(path=write(tmp_path / "a.jsonl", texts(4, word="cat")))
    early = SourceSpec(path=write(tmp_path / "e.jsonl", [{"text": "short"}]))
    with pytest.raises(DataError, match="curriculum: no rows are left .*too_short"):
        build_documents(PretrainDataSpec(train=[train], curriculum=CurriculumSpec(sources=[early])), seed=0)


def test_conversations_become_documents(tmp_path):
    path = write(tmp_path / "a.jsonl", alpaca(3, word="Tell me a long story about"))
    built = build_documents(PretrainDataSpec(train=[SourceSpec(path=path)]), seed=0)
    assert len(built.train) == 3 and all(len(document.turns) == 2 for document in built.train)


def test_nothing_left_is_an_error_that_says_what_went(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"instruction": "x", "output": ""}])
    with pytest.raises(DataError, match="no rows are left .*empty_answer.*such as empty_answer .*a.jsonl:1"):
        build_conversations(DataSpec(train=[SourceSpec(path=path)]), tiny_tokenizer(), seed=0)


# Of the rows below as they were before cleaning had more steps than length, letters and exact repeats.
ROWS_BEFORE = ["0b3bdbc32fc1bcf3", "84c574dbbd8ba3a9", "4a3ce9443d71ca07"]


def rows_to_clean() -> tuple[list[dict], list[dict], list[dict]]:
    """Documents, conversations and pairs that the steps which are off by default would change or drop."""
    documents = [
        {"text": f"The {word} says {n} {n}... to me@here.org {{call 555-123-4567}} schÃ¶n"}
        for word in ("cat", "dog", "owl")
        for n in range(9)
    ]
    documents += [documents[0], {"text": documents[1]["text"].upper()}, {"text": "short"}]
    documents += [{"text": "1 2 3 4 5 6 7 8 9 10 11 12"}, {"text": "x" * 30}]
    chats = [
        {"instruction": f"Add {i}.", "input": "", "output": f"ok {i}, or me@here.org"} for i in range(20)
    ]
    both = [
        {
            "prompt": f"Say {i}",
            "chosen": f"good {i} me@here.org",
            "rejected": f"bad {i} me@here.org",
            "kind": "k",
        }
        for i in range(20)
    ]
    return documents, chats * 2, both * 2


def test_recipes_without_the_newer_steps_give_the_rows_they_always_gave(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, rows in zip("abc", rows_to_clean(), strict=True):
        write(Path(f"{name}.jsonl"), rows)
    b, c = ([SourceSpec(path=f"{name}.jsonl")] for name in "bc")
    held, tokenizer = HoldoutSpec(rows=3), tiny_tokenizer()
    documents = PretrainDataSpec(train=[SourceSpec(path="a.jsonl", weight=1.5)], holdout=held)
    built = [
        build_documents(documents, seed=0),
        build_conversations(DataSpec(train=b, holdout=held), tokenizer, seed=0),
        build_pairs(PairDataSpec(train=c, holdout=held), tokenizer, seed=0),
    ]
    told = ["\n".join(map(repr, [*part.train, *part.holdout])) for part in built]
    since = (", rewritten=False", ", template='', shots=0")  # fields that came since
    for field in since:
        told = [rows.replace(field, "") for rows in told]
    digests = [sha256(rows.encode()) for rows in told]
    assert [digest.hexdigest()[:16] for digest in digests] == ROWS_BEFORE
    assert not any("changed" in source for part in built for source in part.report.to_json()["train"])
    assert not any("words" in part.report.to_json() for part in built)
    assert not any(source.changed for part in built for source in part.report.train)


def test_conversations_and_pairs_are_cleaned_where_a_recipe_says_so(tmp_path):
    _, chats, both = rows_to_clean()
    clean = RowCleanSpec(mask=["email"], deduplicate=True)
    spec = DataSpec(train=[SourceSpec(path=write(tmp_path / "a.jsonl", chats))], clean=clean)
    report = build_conversations(spec, tiny_tokenizer(), seed=0).report
    check_accounts(report)
    assert report.to_json()["train"][0]["changed"] == {"masked_email": 40}
    assert report.train[0].changed == {"masked_email": 40} and report.train[0].dropped == {"duplicate": 20}
    pair_spec = PairDataSpec(train=[SourceSpec(path=write(tmp_path / "b.jsonl", both))], clean=clean)
    report = build_pairs(pair_spec, tiny_tokenizer(), seed=0).report
    check_accounts(report)
    assert report.train[0].changed == {"masked_email": 80} and report.train[0].dropped == {"duplicate": 20}


def test_samples_of_dropped_rows_are_never_written(tmp_path):
    rows = [*alpaca(3), {"instruction": "x", "output": ""}, {"instruction": "secret<|eos|>", "output": "b"}]
    spec = DataSpec(train=[SourceSpec(path=write(tmp_path / "a.jsonl", rows))])
    report = build_conversations(spec, tiny_tokenizer(), seed=0).report
    assert {reason: str(row.origin)[-9:] for reason, (row,) in report.train[0].samples.items()} == {
        "empty_answer": "a.jsonl:4",
        "control_token_in_text": "a.jsonl:5",
    }
    assert "secret" not in json.dumps(report.to_json()) and "samples" not in report.to_json()["train"][0]
