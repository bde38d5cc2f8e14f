"""The readers on the public files they are for; skipped where those are not there (set ALIGNER_REALDATA)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from aligner.data.build import build_conversations, build_documents, build_pairs, build_prompts
from aligner.data.readers import read_source
from aligner.data.readers.formats import read_records
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
        ("dolly", "dolly", "conversation", 12, {}),
        ("gpteacher", "alpaca", "conversation", 1000, {}),
        ("lima", "alpaca", "conversation", 665, {}),
        ("llamafactory_demo/alpaca_zh_demo.json", "alpaca", "conversation", 700, {}),
        ("truthfulqa/finetune_truth.jsonl", "completions", "conversation", 3000, {}),
        ("fastchat/dummy_conversation.json", "sharegpt", "conversation", 500, {}),
        ("medicalgpt/sharegpt_zh_1K_format.jsonl", "sharegpt", "conversation", 300, {"empty_turn": 1}),
        ("moss/conversations", "moss", "conversation", 282, {}),
        ("natural-instructions", "natural_instructions", "conversation", 2400, {}),
        ("flan_cot", "flan_cot", "conversation", 4200, {}),
        ("aqua", "aqua", "conversation", 254, {}),
        ("mmlu/dev", "mmlu", "conversation", 40, {}),
        ("mmlu/val", "mmlu", "conversation", 114, {}),
        ("mmlu/test", "mmlu", "conversation", 1056, {}),
        ("belle/zh_seed_tasks.json", "self_instruct", "conversation", 175, {}),
        ("belle/eval_set.json", "belle", "prompt", 600, {}),
        ("moss/user_prompts", "prompts", "prompt", 192, {}),
        ("open-assistant/prompt_lottery_en_250_text.jsonl", "prompts", "prompt", 150, {}),
        ("fastchat/mt_bench/question.jsonl", "mt_bench", "prompt", 80, {}),
        ("ifeval/input_data.jsonl", "prompts", "prompt", 300, {}),
        ("ifeval/input_response_data_gpt4_20231107_145030.jsonl", "completions", "conversation", 300, {}),
        ("llamafactory_demo/c4_demo.jsonl", "documents", "document", 200, {}),
        ("dolma/documents-000.json.gz", "documents", "document", 10, {}),
        ("dolma/cc_en_head-0091.jsonl", "documents", "document", 10, {}),
        ("gsm8k/test.jsonl", "gsm8k", "conversation", 660, {}),
        ("alpaca_eval/text_davinci_003/model_outputs.json", "alpaca", "conversation", 473, None),
        ("alpaca_eval/vicuna-7b/model_outputs.json", "alpaca", "conversation", 473, None),
    ],
)
def test_every_row_is_read_or_dropped_by_name(name, data_format, kind, read, dropped):
    source = read_source(SourceSpec(path=real(name)), kind)
    assert (source.format, source.rows_read) == (data_format, read)
    assert len(source.rows) > 0.98 * read
    assert dropped is None or source.dropped == dropped


def test_rows_that_are_only_half_a_conversation_are_counted():
    """Two of P3's files are empty, which only a named format lets pass; half of BELLE has no reference answer."""
    p3 = read_source(SourceSpec(path=real("t0_p3"), format="completions"), "conversation")
    assert (len(p3.files), len(p3.rows), p3.rows_read) == (24, 1058, 1058)
    assert not any("endoftext" in turn.content for row in p3.rows for turn in row.turns)
    belle = read_source(SourceSpec(path=real("belle/eval_set.json")), "conversation")
    assert (len(belle.rows), belle.dropped) == (362, {"no_answer": 238})
    tools = read_source(
        SourceSpec(path=real("llamafactory_demo/glaive_toolcall_en_demo.json")), "conversation"
    )
    assert (len(tools.rows), tools.dropped) == (300, {})
    assert sum(turn.role == "tool" for row in tools.rows for turn in row.turns) == 211
    assert sum(len(turn.tool_calls) for row in tools.rows for turn in row.turns) == 211
    assert sum(bool(row.turns[0].tools) for row in tools.rows) == 191


def test_pages_and_archives_give_their_main_text():
    pytest.importorskip("trafilatura")
    pytest.importorskip("warcio")
    pages = read_source(SourceSpec(path=real("article-extraction/html")), "document")
    assert (pages.format, len(pages.rows), pages.dropped) == ("html", 27, {})
    truth = json.loads(Path(real("article-extraction/ground-truth.json")).read_text(encoding="utf-8"))
    scores = [
        shared_words(row.text, truth[Path(row.origin.path).name.split(".")[0]]["articleBody"])
        for row in pages.rows
    ]
    assert sum(scores) / len(scores) > 0.93 and min(scores) > 0.6
    archive = read_source(SourceSpec(path=real("dolma/sample-0000.warc.gz")), "document")
    assert (archive.format, archive.rows_read) == ("warc", 22)
    assert archive.dropped.keys() <= {"no_page", "no_main_text"} and len(archive.rows) >= 20
    assert not any("<div" in row.text for row in [*pages.rows, *archive.rows])


def shared_words(text: str, truth: str) -> float:
    """F1 of the words of two texts, repeats counted."""
    one, other = Counter(text.split()), Counter(truth.split())
    return 2 * (one & other).total() / (one.total() + other.total())


def test_no_marker_of_a_format_is_left_in_a_conversation():
    marks = {"moss/conversations": ("<|", "<eo"), "flan_cot": ("\\n",), "gpteacher": (), "lima": ()}
    for name, left in marks.items():
        rows = read_source(SourceSpec(path=real(name)), "conversation").rows
        texts = [turn.content for row in rows for turn in row.turns]
        assert [text for text in texts for mark in left if mark in text] == []
        roles = ["-".join(turn.role for turn in row.turns) for row in rows]
        assert all(
            role.removeprefix("system-").replace("user-assistant", "").strip("-") == "" for role in roles
        )
    lima = read_source(SourceSpec(path=real("lima")), "conversation").rows
    assert sum(len(row.turns) > 2 for row in lima) == 15 and max(len(row.turns) for row in lima) == 20


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


@pytest.mark.parametrize(
    ("name", "data_format", "files"),
    [
        ("gutenberg/**/*.txt", "text", 11),
        ("gutenberg/**/*.htm", "html", 4),
        ("movie_reviews", "text", 300),
        ("udhr2", "text", 13),
        ("llamafactory_demo/wiki_demo.txt", "text", 1),
        ("tinyshakespeare", "text", 1),
        ("article-extraction/html", "html", 27),
    ],
)
def test_files_of_text_and_pages_all_give_documents(name, data_format, files):
    if data_format == "html":
        pytest.importorskip("trafilatura")
    first, *rest = name.split("/")
    source = read_source(SourceSpec(path="/".join([real(first), *rest])), "document")
    assert source.format == data_format and len(source.files) == files and not source.dropped
    assert {row.origin.path for row in source.rows} == set(map(str, source.files))


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
