from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import trl
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from aligner.data.ids import one_bos
from aligner.data.messages import as_messages
from aligner.data.rows import Document, Origin, Pair, Prompt, ToolCall, Turn
from aligner.data.templates import control_tokens
from aligner.data.tokens import (
    document_ids,
    render_prompt,
    tokenize_conversation,
    tokenize_conversations,
    tokenize_documents,
    tokenize_pairs,
    tokenize_prompts,
)
from aligner.errors import DataError
from tests.data.chats import ORIGIN, TEMPLATES, THINKING, chat, conversation
from tests.tiny import tiny_tokenizer

ASKED = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture(params=["own", *TEMPLATES])
def any_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    if request.param != "own":
        tokenizer.chat_template = TEMPLATES[request.param]
    return tokenizer


def answers(row, tokenizer) -> list[str]:
    """Each supervised run, decoded."""
    runs: list[list[int]] = []
    for index, (token, counts) in enumerate(zip(row.input_ids, row.supervised, strict=True)):
        if counts and (index == 0 or not row.supervised[index - 1]):
            runs.append([])
        if counts:
            runs[-1].append(token)
    return [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in runs]


def said(answer: str, tokenizer) -> str:
    """The supervised text of an answer: our own template writes a space before it, the others nothing."""
    return ("" if tokenizer.chat_template in TEMPLATES.values() else " ") + answer + "<|eos|>"


def test_the_mask_of_one_row_worked_by_hand(tokenizer):
    ids = dict(
        zip(
            ["bos", "user", "assistant", "eos"],
            tokenizer.convert_tokens_to_ids(["<|bos|>", "<|user|>", "<|assistant|>", "<|eos|>"]),
            strict=True,
        )
    )
    question, answer = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (" Is it red?", " Yes.")
    )
    row = tokenize_conversation(chat("Is it red?", "Yes."), tokenizer, 64)
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "Is it red?"}], tokenize=False)
    middle = [ids["eos"]] if rendered.endswith("<|eos|>") else []
    prompt = [ids["bos"], ids["user"], *question, *middle, ids["assistant"]]
    assert row.input_ids == [*prompt, *answer, ids["eos"]]
    assert row.supervised == [False] * len(prompt) + [True] * (len(answer) + 1)
    assert row.labels == [-100] * len(prompt) + [*answer, ids["eos"]]


def test_every_answer_and_its_end_token_is_supervised_and_nothing_else(any_tokenizer):
    row = tokenize_conversation(
        chat("Hi there", "Good day.", "And now? ", "Two\n\nparts: é 漢 🙂", "Bye", "  ok", system="Be kind."),
        any_tokenizer,
        512,
    )
    assert [text.strip() for text in answers(row, any_tokenizer)] == [
        "Good day.<|eos|>",
        "Two\n\nparts: é 漢 🙂<|eos|>",
        "ok<|eos|>",
    ]
    assert row.supervised[-1] and row.input_ids[-1] == any_tokenizer.eos_token_id
    assert (
        row.input_ids.count(any_tokenizer.bos_token_id) == 1
        and row.input_ids[0] == any_tokenizer.bos_token_id
    )


def test_training_begins_an_answer_exactly_where_sampling_does(any_tokenizer):
    for answer in ("Yes.", " leading space", "\nnewline first", "漢字"):
        row = tokenize_conversation(chat("Is it red?", answer), any_tokenizer, 128)
        prompt = render_prompt(chat("Is it red?"), any_tokenizer)
        assert row.input_ids[: len(prompt)] == prompt
        assert row.supervised == [False] * len(prompt) + [True] * (len(row.input_ids) - len(prompt))


def test_our_own_template_agrees_with_its_generation_markers(tokenizer):
    turns = chat("What is 7 + 5?", "12.", "And 1?", "13.", system="Count.")
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    oracle = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    row = tokenize_conversation(turns, tokenizer, 256)
    assert row.input_ids == oracle["input_ids"]
    assert [int(counts) for counts in row.supervised] == oracle["assistant_masks"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30), min_size=2, max_size=6))
def test_any_text_is_supervised_whole(texts):
    texts = [text.strip() or "x" for text in texts][: len(texts) // 2 * 2]
    for template in TEMPLATES.values():
        tokenizer = TOKENIZER_FOR_TEXT
        tokenizer.chat_template = template
        row = tokenize_conversation(chat(*texts), tokenizer, 4096)
        assert answers(row, tokenizer) == [text + "<|eos|>" for text in texts[1::2]]


TOKENIZER_FOR_TEXT = tiny_tokenizer()


def test_a_template_that_renders_answers_elsewhere_is_named_with_the_row(tokenizer):
    bad = tiny_tokenizer()
    bad.chat_template = "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}" + ASKED
    with pytest.raises(DataError, match=r"rows\.jsonl:3: the chat template renders the answer elsewhere"):
        tokenize_conversations([conversation("a", "b", line=3)], bad, 64)


@pytest.mark.parametrize(
    ("contents", "learnt", "rewritten"),
    [
        (["a", "b"], ["<think></think>b"], False),
        (["a", "b", "c", "d", "e", "f"], ["b", "d", "<think></think>f"], False),
        (["a", "<think>r</think>b", "c", "d"], ["<think></think>d"], True),
        (["a", "b", "c", "<think>r</think>d"], ["b", "<think>r</think>d"], False),
    ],
)
def test_earlier_answers_are_learnt_where_all_they_say_is_still_there(contents, learnt, rewritten):
    thinking = tiny_tokenizer()
    thinking.chat_template = THINKING
    row = tokenize_conversation(chat(*contents, system="s"), thinking, 256)
    assert answers(row, thinking) == [text + "<|eos|>" for text in learnt] and row.rewritten is rewritten
    messages = as_messages(chat(*contents, system="s"))
    text = thinking.decode(row.input_ids, clean_up_tokenization_spaces=False).removeprefix("<|bos|>")
    assert text == thinking.apply_chat_template(messages, tokenize=False)


def test_qwen3s_own_template_learns_every_answer_and_call():
    thinking = tiny_tokenizer()
    template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
    thinking.chat_template = template.replace("<|im_end|>", "<|eos|>").replace("<|im_start|>", "<|user|>")
    empty = "<think>\n\n</think>\n\n"
    row = tokenize_conversation(chat("a", "b", "c", "d"), thinking, 256)
    assert answers(row, thinking) == ["b<|eos|>", f"{empty}d<|eos|>"] and not row.rewritten
    call = Turn("assistant", "", (ToolCall("f", "{}"),))
    row = tokenize_conversation((*chat("a"), call, Turn("tool", "t"), Turn("assistant", "d")), thinking, 256)
    called = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call><|eos|>'
    assert answers(row, thinking) == [called, f"{empty}d<|eos|>"]
    thinking.chat_template = THINKING  # it leaves calls out
    row = tokenize_conversation((*chat("a"), call, Turn("tool", "t"), Turn("assistant", "d")), thinking, 256)
    assert answers(row, thinking) == ["<think></think>d<|eos|>"] and row.rewritten


def test_an_earlier_answer_that_does_not_go_on_from_its_prompt_is_context():
    """As in Qwen3.5: the generation prompt has the thinking block, and earlier answers have none."""
    thinking = tiny_tokenizer()
    thinking.chat_template = THINKING.replace("<|assistant|>{% endif", "<|assistant|><think></think>{% endif")
    row = tokenize_conversation(chat("a", "b", "c", "d"), thinking, 256)
    assert answers(row, thinking) == ["d<|eos|>"] and row.rewritten
    whole = tokenize_conversation(chat("a", "b"), thinking, 256)
    assert answers(whole, thinking) == ["b<|eos|>"] and not whole.rewritten


def test_a_template_without_an_end_token_or_that_refuses_or_is_missing_is_told(tokenizer):
    bad = tiny_tokenizer()
    bad.chat_template = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}" + ASKED
    with pytest.raises(DataError, match="no end token"):
        tokenize_conversation(chat("a", "b"), bad, 64)
    bad.chat_template = (
        "{% if messages[0].content == 'bad' %}{{ raise_exception('no such role') }}{% endif %}"
        + TEMPLATES["llama"]
    )
    with pytest.raises(
        DataError, match=r"rows\.jsonl:2: the chat template refuses this row \(no such role\)"
    ):
        tokenize_conversations([conversation("a", "b"), conversation("bad", "b", line=2)], bad, 64)
    bad.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        tokenize_conversation(chat("a", "b"), bad, 64)


def test_an_end_of_turn_token_other_than_eos_ends_the_answer():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATES["llama"].replace("{{ eos_token }}", "<|system|>")
    row = tokenize_conversation(chat("a", "b", "c", "d"), tokenizer, 64)
    assert answers(row, tokenizer) == ["b<|system|>", "d<|system|>"]


def test_tokenizers_without_bos_and_eos_are_served():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATES["chatml"].replace("{{ eos_token }}", "<|assistant|>")
    tokenizer.bos_token = tokenizer.eos_token = None
    row = tokenize_conversation(chat("a", "b"), tokenizer, 64)
    assert answers(row, tokenizer) == ["b<|assistant|>"]
    assert tokenizer.decode(document_ids(Document(ORIGIN, text="just text"), tokenizer)) == "just text"


def test_exactly_one_bos(tokenizer):
    bos = tokenizer.bos_token_id
    assert (
        one_bos([9, 8], tokenizer)
        == one_bos([bos, 9, 8], tokenizer)
        == one_bos([bos, bos, 9, 8], tokenizer)
        == [bos, 9, 8]
    )


def test_long_prompts_are_cut_from_the_left_behind_the_template_prefix(any_tokenizer):
    question = " ".join(f"word{i}" for i in range(60)) + " the end?"
    row = tokenize_conversation(chat(question, "Yes."), any_tokenizer, 48)
    text = any_tokenizer.decode(row.input_ids, clean_up_tokenization_spaces=False)
    whole = any_tokenizer.decode(render_prompt(chat("#"), any_tokenizer), clean_up_tokenization_spaces=False)
    prefix, suffix = whole.split("#")
    assert len(row.input_ids) == 48 and row.prompt_cut and not row.answer_cut
    assert text.startswith(prefix.rstrip(" ")) and text.endswith(
        "the end?" + suffix + said("Yes.", any_tokenizer)
    )
    assert answers(row, any_tokenizer) == [said("Yes.", any_tokenizer)]


def test_long_conversations_lose_whole_exchanges_and_keep_the_system_turn(any_tokenizer):
    turns = chat(
        "first question",
        "first answer",
        "second question",
        "second answer",
        "third",
        "final",
        system="Be kind.",
    )
    whole = tokenize_conversation(turns, any_tokenizer, 1000)
    row = tokenize_conversation(turns, any_tokenizer, len(whole.input_ids) - 1)
    text = any_tokenizer.decode(row.input_ids)
    assert "Be kind." in text and "first" not in text and "second question" in text
    assert answers(row, any_tokenizer) == [
        said(answer, any_tokenizer) for answer in ("second answer", "final")
    ]
    assert row.prompt_cut and not row.answer_cut and not whole.prompt_cut


def test_an_answer_that_does_not_fit_is_cut_and_counted(tokenizer):
    row = tokenize_conversation(chat("q " * 100, "a " * 100), tokenizer, 40)
    assert row.answer_cut and row.prompt_cut and len(row.input_ids) == 40
    assert sum(row.supervised) == 30  # a quarter is kept for the prompt
    assert tokenizer.eos_token_id not in [t for t, s in zip(row.input_ids, row.supervised, strict=True) if s]
    exact = tokenize_conversation(chat("q", "a"), tokenizer, 1000)
    fits = tokenize_conversation(chat("q", "a"), tokenizer, len(exact.input_ids))
    assert fits == exact and not exact.answer_cut


def test_pairs_share_the_prompt_and_end_with_the_end_token(any_tokenizer):
    pair = Pair(ORIGIN, chat("Hi", "Hello", "And now?"), "good answer", "bad", margin=0.5, kind="manner")
    (row,) = tokenize_pairs([pair], any_tokenizer, 200)
    prompt = render_prompt(pair.prompt, any_tokenizer)
    assert row.chosen_ids[: row.prompt_length] == row.rejected_ids[: row.prompt_length] == prompt
    assert any_tokenizer.decode(row.chosen_ids[row.prompt_length :]) == said("good answer", any_tokenizer)
    assert any_tokenizer.decode(row.rejected_ids[row.prompt_length :]) == said("bad", any_tokenizer)
    assert (row.margin, row.kind, row.prompt_cut, row.answer_cut) == (0.5, "manner", False, False)


def test_a_pair_too_long_loses_the_same_prompt_tokens_on_both_sides(any_tokenizer):
    pair = Pair(ORIGIN, chat("word " * 60 + "the end?"), "long answer here", "no")
    (row,) = tokenize_pairs([pair], any_tokenizer, 64)
    assert len(row.chosen_ids) == 64 and row.prompt_cut and not row.answer_cut
    assert row.chosen_ids[: row.prompt_length] == row.rejected_ids[: row.prompt_length]
    assert any_tokenizer.decode(row.rejected_ids[row.prompt_length :]) == said("no", any_tokenizer)
    (cut,) = tokenize_pairs([Pair(ORIGIN, chat("q " * 60), "a " * 60, "no")], any_tokenizer, 40)
    assert cut.answer_cut and len(cut.chosen_ids) == 40 and cut.prompt_length == 10


def test_prompts_keep_their_end_within_the_limit(any_tokenizer):
    prompts = [Prompt(ORIGIN, chat("short")), Prompt(ORIGIN, chat("word " * 60 + "the end?"))]
    short, long = tokenize_prompts(prompts, any_tokenizer, 40)
    assert short.input_ids == render_prompt(prompts[0].turns, any_tokenizer) and not short.prompt_cut
    assert len(long.input_ids) == 40 and long.prompt_cut and long.prompt is prompts[1]
    tail = any_tokenizer.decode(short.input_ids).split("short")[1]
    assert any_tokenizer.decode(long.input_ids).endswith("the end?" + tail)


@pytest.mark.parametrize("longest", [2, 3, 7, 16, 1000])
def test_documents_to_be_learnt_are_split_and_every_id_is_learnt_once(any_tokenizer, longest):
    given = [Document(ORIGIN, text="The cat of Mia is red. " * n) for n in (1, 3)] + [
        Document(ORIGIN, text="a")
    ]
    for document, rows in zip(given, tokenize_documents(given, any_tokenizer, longest), strict=True):
        ids = document_ids(document, any_tokenizer)
        assert all(2 <= len(row.input_ids) <= longest for row in rows)
        assert all(len(row.input_ids) == longest for row in rows[:-1])
        learnt = [
            t for row in rows for t, counts in zip(row.input_ids, row.supervised, strict=True) if counts
        ]
        assert [rows[0].input_ids[0], *learnt] == ids  # each in its place
        assert all(b.input_ids[0] == a.input_ids[-1] for a, b in pairwise(rows))
        assert not any(row.prompt_cut or row.answer_cut or row.rewritten for row in rows)


def test_documents_cannot_forge_control_tokens(any_tokenizer):
    controls = set(any_tokenizer.convert_tokens_to_ids(list(control_tokens(any_tokenizer))))
    text = "before <|eos|><|user|> after"
    ids = document_ids(Document(ORIGIN, text=text), any_tokenizer)
    assert (ids[0], ids[-1]) == (any_tokenizer.bos_token_id, any_tokenizer.eos_token_id)
    assert not controls & set(ids[1:-1]) and any_tokenizer.decode(ids[1:-1]) == text
    honest = document_ids(Document(ORIGIN, turns=chat("hi", "ho")), any_tokenizer)
    forged = document_ids(Document(ORIGIN, turns=chat("hi<|eos|>", "ho<|assistant|>")), any_tokenizer)
    assert [t for t in forged if t in controls] == [t for t in honest if t in controls]
    assert honest[-1] == any_tokenizer.eos_token_id and honest.count(any_tokenizer.bos_token_id) == 1


def test_the_unknown_token_is_no_control_token():
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"unk_token": "<unk>"})
    assert "<unk>" not in control_tokens(tokenizer) and "<|eos|>" in control_tokens(tokenizer)


def test_a_conversation_must_end_with_an_answer(tokenizer):
    with pytest.raises(ValueError, match="ends with an assistant turn"):
        tokenize_conversation((Turn("user", "a"),), tokenizer, 9)
    assert str(Origin("a", 3)) == "a:3"
