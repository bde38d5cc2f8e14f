"""The readers on the public files they are for; skipped where those are not there (set ALIGNER_REALDATA)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from aligner.data.build import build_conversations, build_documents, build_pairs, build_prompts
from aligner.data.readers import read_source
from aligner.data.readers.records import read_records
from aligner.recipe.data import DataSpec, HoldoutSpec, PairDataSpec, PretrainDataSpec, SourceSpec
from tests.data.real import real
from tests.tiny import tiny_tokenizer


@pytest.mark.parametrize(
    ("name", "data_format", "kind", "read", "dropped"),
    [
        ("stanford_alpaca", "alpaca", "conversation", 3252, {"empty_answer": 4}),
        ("self-instruct/seed_tasks.jsonl", "self_instruct", "conversation", 175, {}),
        ("gsm8k/train.jsonl", "gsm8k", "conversation", 4500, {}),
        (
            "hh-rlhf/harmless-base",
            "hh",
            "pair",
            1700,
            {"further_turns": 2, "roles_out_of_order": 3, "empty_answer": 4},
        ),
        ("hh-rlhf/helpful-base", "hh", "pair", 1700, None),
        ("hh-rlhf/helpful-rejection-sampled", "hh", "pair", 1700, {"further_turns": 2, "answers_equal": 18}),
    ],
)
def test_every_row_is_read_or_dropped_by_name(name, data_format, kind, read, dropped):
    source = read_source(SourceSpec(path=real(name)), kind)
    assert (source.format, source.rows_read) == (data_format, read)
    assert len(source.rows) > 0.98 * read
    assert dropped is None or source.dropped == dropped


@pytest.mark.parametrize(
    ("name", "data_format", "rows", "pairs", "dropped"),
    [
        ("llamafactory_demo/dpo_en_demo.json", "sharegpt_pairs", 300, 300, {}),
        ("medicalgpt/dpo_zh_500.jsonl", "sharegpt_pairs", 350, 350, {}),
        ("llamafactory_demo/kto_en_demo.json", "kto", 200, 1, {"no_opposite": 198}),  # the pair is of 2 rows
        ("oasst_rm_zh/oaast_rm_zh.json", "alpaca_rankings", 450, 1141, {"answers_equal": 4}),
        ("open-assistant/en_100_tree.jsonl", "oasst", 60, 446, {"single_answer": 30, "unranked": 1}),
        ("alpaca_eval/alpaca-7b/annotations.json", "alpaca_eval", 473, 466, {"tie": 7}),
        ("alpaca_eval/claude-2/annotations.json", "alpaca_eval", 473, 472, {"tie": 1}),
        ("alpaca_eval/guanaco-65b/annotations.json", "alpaca_eval", 473, 473, {}),
    ],
)
def test_every_row_of_feedback_becomes_pairs_or_is_dropped_by_name(name, data_format, rows, pairs, dropped):
    path = Path(real(name))
    source = read_source(SourceSpec(path=str(path)), "pair")
    assert (source.format, len(source.rows), source.dropped) == (data_format, pairs, dropped)
    origins = [record.origin.line for record in read_records(path)]
    assert len(origins) == rows
    if data_format not in ("kto", "oasst"):  # there a pair is of several rows, or a row of many rankings
        ranked = [len(record.value.get("output", "12")) for record in read_records(path)]
        assert source.rows_read == sum(k * (k - 1) // 2 for k in ranked)
    if not dropped:
        assert [row.origin.line for row in source.rows] == origins


def siblings(message: dict) -> list[int]:
    """How many answers with a rank each message of the user's has, all the way down a tree."""
    replies = message.get("replies", [])
    ranked = sum("rank" in reply for reply in replies if reply["role"] == "assistant")
    return [ranked, *(count for reply in replies for count in siblings(reply))]


def test_trees_give_each_rankings_pairs_and_one_conversation():
    path = real("open-assistant/en_100_tree.jsonl")
    trees = [json.loads(line)["prompt"] for line in Path(path).read_text().splitlines()]
    pairs = read_source(SourceSpec(path=path), "pair")
    wanted = {i: sum(k * (k - 1) // 2 for k in siblings(tree)) for i, tree in enumerate(trees, start=1)}
    assert Counter(row.origin.line for row in pairs.rows) == +Counter(wanted)
    chats = read_source(SourceSpec(path=path), "conversation")
    assert len(chats.rows) == len(trees) == 60 and not chats.dropped
    assert all(len(row.turns) % 2 == 0 for row in chats.rows)


def test_books_and_plain_text_lose_nothing_but_their_frame():
    source = read_source(
        SourceSpec(path=real("gutenberg/Alice-s-Adventures-in-Wonderland_11/11.txt")), "document"
    )
    assert "Gutenberg" not in "".join(row.text for row in source.rows)
    assert source.rows[-1].text.endswith("THE END")
    play = real("tinyshakespeare/input.txt")
    texts = [row.text for row in read_source(SourceSpec(path=play), "document").rows]
    assert "".join("".join(texts).split()) == "".join(Path(play).read_text().split())
    assert max(map(len, texts)) <= 2000
    assert len(read_source(SourceSpec(path=real("wikitext-2")), "document").rows) > 500


def test_the_real_stages_find_their_rows():
    tokenizer = tiny_tokenizer()
    chats = [
        SourceSpec(path=real(name), cap=150)
        for name in ("stanford_alpaca", "self-instruct", "gsm8k/train.jsonl")
    ]
    sft = build_conversations(
        DataSpec(train=chats, holdout=HoldoutSpec(rows=20), max_length=512, cut_answers=0.5),
        tokenizer,
        seed=0,
    )
    assert 400 < len(sft.train) <= 450 and len(sft.holdout) == 20
    hh = [SourceSpec(path=real("hh-rlhf/harmless-base"), cap=100)]
    pairs = build_pairs(
        PairDataSpec(train=hh, holdout=HoldoutSpec(rows=10), cut_answers=1.0), tokenizer, seed=0
    )
    assert len(pairs.train) == 100 and len(pairs.holdout) == 10
    assert len(build_prompts(hh, tokenizer, max_prompt_tokens=64, seed=0).rows) == 100
    books = build_documents(
        PretrainDataSpec(train=[SourceSpec(path=real("gutenberg") + "/**/*.txt"), *chats, *hh]), seed=0
    )
    for report in (sft.report, pairs.report, books.report):
        assert all(
            s.rows_read == s.rows_used + sum(s.dropped.values()) for s in (*report.train, *report.holdout)
        )
