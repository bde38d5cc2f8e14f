"""Masks and templates over 2,000 random conversations of public template families, against pieces written by hand."""

from __future__ import annotations

import json
import random
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from aligner.data.build import build_conversations
from aligner.data.rows import Conversation, Origin, Turn
from aligner.data.tokens import TokenRow, render_prompt, tokenize_conversations
from aligner.errors import DataError
from aligner.models.tokenizer import ensure_end
from aligner.recipe.data import DataSpec
from tests.data.chats import PLAIN_WORDS, chat
from tests.data.families import FAMILIES, Family, text_of, tokenizer_of

EXAMPLES = 250  # of each family
WORDS = (
    *("cat", "red", "What is 7 + 5?", "I do not know.", "a", ".", "x" * 30, "0", "don't", "<b>", "{{ x }}", "{% if %}"),
    *("é", "e\u0301", "漢字", "שלום", "🙂", "👩‍👩‍👧", "\u200b", "\u00a0", "ǅ", "ﬁ", "\ufeff", "\U0010ffff"),
    *(" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u2028", " \n "),
    # like control tokens, and none of any family
    *("<|im_start", "im_end|>", "<|", "|>", "<", "[INST", "/INST]", "<<SYS>>", "<</SYS>>", "< /s>", "</s", "<S>", "eos>"),
    *("< |eot_id|>", "<|EOT_ID|>", "<｜end｜>", "end_of_turn", "<0x41>", "assistant", "\nUSER: ", "ASSISTANT:", "###"),
)  # fmt: skip


def text(chooser: random.Random) -> str:
    """Never nothing: readers drop a row with an empty turn. Not stripped: some templates do it, others do not."""
    words = [chooser.choice(WORDS) for _ in range(chooser.randrange(1, 7))]
    joined = chooser.choice(("", " ")).join(words)
    return joined if joined.strip() else "word"


def conversation(chooser: random.Random, number: int, *, system: bool) -> Conversation:
    told = [Turn("system", text(chooser))] if system and chooser.random() < 0.5 else []
    exchanges = [
        turn
        for _ in range(chooser.choice((1, 1, 2, 3, 4)))
        for turn in (Turn("user", text(chooser)), Turn("assistant", text(chooser)))
    ]
    return Conversation(Origin("rows.jsonl", number), (*told, *exchanges), str(number))


@cache
def examples(name: str) -> list[Conversation]:
    """None with a control token in its text, as might come together by chance: those are not tokenised at all."""
    chooser, family = random.Random(name), FAMILIES[name]
    found: list[Conversation] = []
    while len(found) < EXAMPLES:
        drawn = conversation(chooser, len(found) + 1, system=family.system)
        if not any(token in turn.content for turn in drawn.turns for token in family.controls):
            found.append(drawn)
    return found


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture
def tokenizer(family: Family) -> PreTrainedTokenizerFast:
    tokenizer = tokenizer_of(family)
    ensure_end(tokenizer)
    return tokenizer


def runs(row: TokenRow) -> list[tuple[int, int]]:
    """Where supervised tokens begin and end."""
    found = [
        (key, [i for i, _ in group]) for key, group in groupby(enumerate(row.supervised), lambda e: e[1])
    ]
    return [(places[0], places[-1] + 1) for counts, places in found if counts]


def test_there_are_2000_examples_of_8_families() -> None:
    assert len(FAMILIES) * EXAMPLES == 2000


def test_supervised_are_the_answers_and_their_ends_by_position(
    family: Family, tokenizer: PreTrainedTokenizerFast
) -> None:
    given = examples(family.name)
    controls = set(tokenizer.convert_tokens_to_ids([*family.controls, "<pad>"]))
    for source, row in zip(given, tokenize_conversations(given, tokenizer, 10_000), strict=True):
        pieces = family.pieces(list(source.turns))
        last = max(i for i, piece in enumerate(pieces) if piece.learnt)
        whole = "".join(piece.text for piece in pieces[: last + 1])
        borders = [len("".join(piece.text for piece in pieces[:i])) for i in range(len(pieces) + 1)]
        wanted = [(borders[i], borders[i + 1]) for i, piece in enumerate(pieces) if piece.learnt]
        assert text_of(row.input_ids, tokenizer, family) == whole, source
        found = [
            tuple(len(text_of(row.input_ids[:border], tokenizer, family)) for border in run)
            for run in runs(row)
        ]
        assert found == wanted, source
        answers = sum(turn.role == "assistant" for turn in source.turns)
        assert row.rewritten == (len(wanted) < answers) and not row.prompt_cut and not row.answer_cut
        # control ids come from the template: as many as its pieces write, and none in between
        written = sum(whole.count(token) for token in family.controls)
        assert sum(token in controls for token in row.input_ids) == written
        assert all(row.input_ids[end - 1] == tokenizer.eos_token_id for _, end in runs(row)), (
            "it would not stop"
        )


def test_exactly_one_beginning(family: Family, tokenizer: PreTrainedTokenizerFast) -> None:
    for source, row in zip(
        examples(family.name), tokenize_conversations(examples(family.name), tokenizer, 10_000), strict=True
    ):
        begins = [i for i, token in enumerate(row.input_ids) if token == tokenizer.bos_token_id]
        if family.bos is None:
            assert begins == []
        elif family.name == "llama2":  # begins every exchange so, by its description
            assert len(begins) == sum(turn.role == "user" for turn in source.turns) and begins[0] == 0
            assert all(after - before > 1 for before, after in pairwise(begins))
        else:
            assert begins == [0]


def test_an_answer_begins_in_training_where_it_begins_in_sampling(
    family: Family, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = tokenize_conversations(examples(family.name), tokenizer, 10_000)
    for source, row in zip(examples(family.name), rows, strict=True):
        prompt = render_prompt(source.turns[:-1], tokenizer)
        assert row.input_ids[: runs(row)[-1][0]] == prompt, source


def test_the_prompt_is_cut_from_the_left_before_an_answer_is(
    family: Family, tokenizer: PreTrainedTokenizerFast
) -> None:
    given, chooser = examples(family.name), random.Random(family.name)
    cut_answers = cut_prompts = 0
    for source, whole in zip(given, tokenize_conversations(given, tokenizer, 10_000), strict=True):
        room = chooser.randrange(24, 200)
        (row,) = tokenize_conversations([source], tokenizer, room)
        if len(whole.input_ids) <= room:
            assert row == whole
            continue
        start_of_whole = runs(whole)[-1][0]
        answer = whole.input_ids[start_of_whole:]
        start = runs(row)[-1][0]
        assert len(row.input_ids) <= room and row.prompt_cut | row.answer_cut
        assert row.answer_cut == (row.input_ids[start:] != answer)
        if row.answer_cut:  # a quarter at most is the prompt's, from its end; the rest begins the answer
            assert start <= room // 4 and len(row.input_ids) == room < start + len(answer)
            assert row.input_ids[start:] == answer[: room - start]
        learnt, all_learnt = ([each.input_ids[a:b] for a, b in runs(each)] for each in (row, whole))
        assert row.answer_cut or learnt == all_learnt[-len(learnt) :], source
        assert row.input_ids[start - 2 : start] == whole.input_ids[start_of_whole - 2 : start_of_whole], (
            source
        )
        assert family.bos is None or row.input_ids[0] == tokenizer.bos_token_id
        cut_answers, cut_prompts = cut_answers + row.answer_cut, cut_prompts + row.prompt_cut
    assert cut_prompts > cut_answers > 0


def test_no_text_forges_a_control_token(
    family: Family, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    chooser = random.Random(family.name)
    rows, forged = [], set()
    for source in examples(family.name):
        turns = [{"role": turn.role, "content": turn.content} for turn in source.turns]
        if chooser.random() < 0.3:
            turn = chooser.choice(turns)
            place = chooser.randrange(len(turn["content"]) + 1)
            token = chooser.choice((*family.controls, "<pad>"))
            turn["content"] = turn["content"][:place] + token + turn["content"][place:]
            forged.add(source.family)
        rows.append({"messages": turns, "family": source.family})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = DataSpec.model_validate({"train": [{"path": str(path)}], "max_length": 10_000})
    data = build_conversations(spec, tokenizer, seed=0)
    (report,) = data.report.train
    assert forged and report.dropped == {"control_token_in_text": len(forged)}
    assert {row.family for row in data.train} == {source.family for source in examples(family.name)} - forged
    assert report.rows_read == EXAMPLES == report.rows_used + len(forged)


@pytest.mark.parametrize("name", ["vicuna", "chatml"])
def test_an_answer_right_behind_a_space_of_the_prompt_gets_no_second_one(name: str) -> None:
    """The prompt ends with a space; the word behind it would be one token with it, and is not in sampling."""
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    tokenizer.chat_template = PLAIN_WORDS
    for turns in (chat("a", "The cat"), chat("a", "\n\nThe cat", "c", "  x", "d", "xx")):
        (row,) = tokenize_conversations([Conversation(Origin("rows.jsonl", 1), turns)], tokenizer, 999)
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        shown = tokenizer.apply_chat_template(messages, tokenize=False).rstrip()
        assert text_of(row.input_ids, tokenizer, family) == shown
        prompt = render_prompt(turns[:-1], tokenizer)
        assert row.input_ids[: runs(row)[-1][0]] == prompt and text_of(prompt, tokenizer, family)[-1] == " "


def test_a_role_that_the_template_refuses_is_told_with_the_row() -> None:
    turns = (Turn("system", "Be kind."), Turn("user", "a"), Turn("assistant", "b"))
    with pytest.raises(
        DataError, match=r"rows\.jsonl:4: the chat template refuses this row \(System role not"
    ):
        tokenize_conversations(
            [Conversation(Origin("rows.jsonl", 4), turns)], tokenizer_of(FAMILIES["gemma"]), 99
        )
