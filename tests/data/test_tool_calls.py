"""Tools: read from two formats, rendered by templates that know of them, and never left out unsaid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trl
from transformers import PreTrainedTokenizerFast

from aligner.data.build import build_conversations, build_prompts
from aligner.data.readers.tool_calls import in_order, tool_call, tools_text
from aligner.data.rows import Conversation, ToolCall, Turn, row_contents
from aligner.data.templates import renders_tools
from aligner.data.tokens import tokenize_conversation, tokenize_conversations
from aligner.recipe.data import DataSpec, SourceSpec
from tests.data.chats import HARMONY, ORIGIN, TEMPLATES, WITH_TOOLS, chat
from tests.data.test_readers import one, parquet, read, write
from tests.tiny import tiny_tokenizer

TOOL = {
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
}
WRAPPED = {"type": "function", "function": TOOL}
CALL = Turn("assistant", "", (ToolCall("add", '{"a": 1}'),))
GIVEN = Turn("system", "", tools=json.dumps([WRAPPED]))
TURNS = (GIVEN, Turn("user", "1+1?"), CALL, Turn("tool", "2"), Turn("assistant", "Two."))

SHAREGPT = {
    "conversations": [
        {"from": "human", "value": "1+1?"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
        {"from": "observation", "value": "2"},
        {"from": "gpt", "value": "Two."},
    ],
    "tools": json.dumps([TOOL]),
}
OPENAI = {
    "messages": [
        {"role": "user", "content": "1+1?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "x", "content": "2"},
        {"role": "assistant", "content": "Two."},
    ],
    "tools": [WRAPPED],
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = WITH_TOOLS
    return tokenizer


@pytest.mark.parametrize(("name", "row"), [("sharegpt", SHAREGPT), ("messages", OPENAI)])
def test_both_formats_read_the_same_turns(tmp_path, name, row):
    assert one(tmp_path, name, row).turns == TURNS
    assert one(tmp_path, name, row, "prompt").turns == TURNS[:2]
    assert one(tmp_path, name, row, "document") == {"tool_calls": 1}
    own = "system" if name == "sharegpt" else "messages"
    said = "S" if name == "sharegpt" else [{"role": "system", "content": "S"}, *row["messages"]]
    first = one(tmp_path, name, {**row, own: said}).turns[0]
    assert first == Turn("system", "S", tools=GIVEN.tools)


def broken(**changes: object) -> dict:
    """The OpenAI row with another call."""
    call = {**OPENAI["messages"][1]["tool_calls"][0], **changes}
    messages = [*OPENAI["messages"]]
    messages[1] = {**messages[1], "tool_calls": [call]}
    return {**OPENAI, "messages": messages}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (broken(id="y"), "tool_calls"),
        (broken(function={"name": "add", "arguments": "{"}), "tool_calls"),
        (broken(function={"name": "", "arguments": {}}), "tool_calls"),
        (broken(function={"name": "add", "arguments": [1]}), "tool_calls"),
        ({"messages": [{"role": "assistant", "content": "a", "tool_calls": 1}]}, "tool_calls"),
        ({**OPENAI, "tools": "no JSON"}, "tool_calls"),
        ({**OPENAI, "tools": [{"parameters": {}}]}, "tool_calls"),
        ({"messages": [{"role": "function", "name": "add", "content": "2"}]}, "tool_calls"),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "function_call": {}, "content": ""},
                ]
            },
            "empty_turn",
        ),
        ({**OPENAI, "messages": OPENAI["messages"][:2] + OPENAI["messages"][3:]}, "roles_out_of_order"),
    ],
)
def test_messages_drop_what_cannot_be_told(tmp_path, row, reason):
    assert one(tmp_path, "messages", row) == {reason: 1}


SAID = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
CALLED = [SAID[0], {"role": "assistant", "content": "b", "function_call": {"name": "add"}}]
RIVAL = [SAID[0], {"role": "assistant", "content": "c"}]


@pytest.mark.parametrize(
    ("name", "plain", "told"),
    [
        ("completions", {"prompt": SAID[:1], "completion": SAID[1:]}, {"completion": CALLED[1:]}),
        ("completions", {"prompt": SAID[:1], "completion": "b"}, {"prompt": [*CALLED, SAID[0]]}),
        ("pairs", {"chosen": SAID, "rejected": RIVAL}, {"chosen": CALLED}),
        ("pairs", {"prompt": "a", "chosen": "b", "rejected": "c"}, {}),
        ("prompts", {"prompt": SAID[:1]}, {"prompt": [*CALLED, SAID[0]]}),
        ("prompts", {"prompt": SAID[:1]}, {"prompt": [*SAID, {"role": "tool", "content": "2"}]}),
        ("alpaca", {"instruction": "a", "output": "b"}, {}),
    ],
)
def test_a_format_that_reads_no_tools_drops_rows_that_have_them(tmp_path, name, plain, told):
    for nothing in ({}, {"tools": None}, {"tools": []}, {"tools": "[]"}):
        assert not isinstance(one(tmp_path, name, {**plain, **nothing}), dict)
    for tools in ([WRAPPED], json.dumps([TOOL]), "no JSON"):
        assert one(tmp_path, name, {**plain, "tools": tools}) == {"tool_calls": 1}
    assert not told or one(tmp_path, name, {**plain, **told}) == {"tool_calls": 1}


def test_judgements_of_calls_are_dropped(tmp_path):
    rows = [
        {"messages": SAID, "label": True},
        {"messages": RIVAL, "label": False},
        {"messages": CALLED, "label": False},
        {"messages": RIVAL, "label": False, "tools": [TOOL]},
        {"prompt": "a", "completion": OPENAI["messages"][1:2], "label": False},
    ]
    source = read(write(tmp_path / "a.jsonl", *rows), "pair", "kto")
    assert [(row.chosen, row.rejected) for row in source.rows] == [("b", "c")]
    assert source.dropped == {"tool_calls": 3}


def test_tables_add_no_arguments_of_other_rows(tmp_path):
    """Parquet gives every row the members of all rows, null where it has none."""
    call = {"id": "x", "type": "function", "function": {"name": "mul", "arguments": {"b": {"c": 2}}}}
    first = broken(function={"name": "add", "arguments": {"a": 1}})
    tool = {"name": "mul", "parameters": {"type": "object", "properties": {"b": {"type": "number"}}}}
    other = {**broken(**call), "tools": [{"type": "function", "function": tool}]}
    (tmp_path / "a.parquet").write_bytes(parquet([first, other, {"messages": SAID, "tools": None}]))
    same = write(tmp_path / "a.jsonl", first, other, {"messages": SAID})
    turns = [row.turns for row in read(tmp_path / "a.parquet", "conversation").rows]
    assert turns == [row.turns for row in read(same, "conversation").rows] and len(turns) == 3
    assert turns[0] == TURNS and turns[1][2].tool_calls == (ToolCall("mul", '{"b": {"c": 2}}'),)


@pytest.mark.parametrize(
    "call", ["{", "[]", '{"name": "add", "arguments": 3}', '{"name": "\\ud800", "arguments": {}}']
)
def test_sharegpt_drops_calls_that_are_no_json(tmp_path, call):
    messages = [*SHAREGPT["conversations"]]
    messages[1] = {"from": "function_call", "value": call}
    assert one(tmp_path, "sharegpt", {**SHAREGPT, "conversations": messages}) == {"tool_calls": 1}


def test_calls_without_arguments_have_none(tmp_path):
    for arguments in ("", None, {}):
        row = one(tmp_path, "messages", broken(function={"name": "add", "arguments": arguments}))
        assert row.turns[2].tool_calls == (ToolCall("add", "{}"),)


def test_json_is_written_with_its_own_letters():
    """Some control tokens are not ASCII: escaped, they would not be found in the text that is searched."""
    assert tool_call('{"name": "f", "arguments": {"a": "\\u2581"}}') == ToolCall("f", '{"a": "\u2581"}')
    assert "\u2581" in (tools_text('[{"name": "\\u2581"}]') or "")


def test_every_call_waits_for_its_result():
    user, tool, said = Turn("user", "a"), Turn("tool", "b"), Turn("assistant", "c")
    two = Turn("assistant", "", (ToolCall("f", "{}"), ToolCall("g", "{}")))
    assert in_order((user, two, tool, tool, said)) and in_order(
        (user, CALL, tool, CALL, tool, said, user, said)
    )
    assert in_order((user, CALL)) and in_order((Turn("system", "s"), user, said))
    for turns in [
        (user, two, tool, said),
        (user, tool, said),
        (user, said, tool),
        (user, CALL, tool, tool),
        (said,),
        (),
    ]:
        assert not in_order(turns)


def test_a_template_with_tools_renders_them_and_calls_are_learnt(tokenizer):
    row = tokenize_conversation(TURNS, tokenizer, 512)
    function = '{"name": "add", "arguments": {"a": 1}}'
    text = (
        f"<|bos|>{json.dumps([WRAPPED])}<|eos|><|user|>1+1?<|eos|><|assistant|>{function}<|eos|>"
        "<|user|>[add 000000000] 2<|eos|><|assistant|>Two.<|eos|>"
    )
    assert tokenizer.decode(row.input_ids, clean_up_tokenization_spaces=False) == text
    learnt = [token for token, counts in zip(row.input_ids, row.supervised, strict=True) if counts]
    assert tokenizer.decode(learnt, clean_up_tokenization_spaces=False) == f"{function}<|eos|>Two.<|eos|>"


def test_each_row_keeps_its_own_tools(tokenizer):
    plain = Conversation(ORIGIN, chat("Hi", "Ho", system="S"))
    rows = [
        Conversation(ORIGIN, TURNS),
        plain,
        Conversation(ORIGIN, (Turn("system", "S", tools='[{"name": "other"}]'), *TURNS[1:])),
    ]
    together = tokenize_conversations(rows, tokenizer, 512)
    assert together == [tokenize_conversations([row], tokenizer, 512)[0] for row in rows]
    assert ["add" in tokenizer.decode(row.input_ids).split("<|user|>")[0] for row in together] == [
        True,
        False,
        False,
    ]


def test_a_long_row_loses_whole_exchanges_and_keeps_its_tools(tokenizer):
    rest = chat("More?", "No.")
    kept = tokenize_conversation((GIVEN, *rest), tokenizer, 512)
    half = tokenize_conversation(
        (GIVEN, *TURNS[3:], *rest), tokenizer, 512
    )  # would fit, without its question
    row = tokenize_conversation((*TURNS, *rest), tokenizer, len(half.input_ids))
    assert row.prompt_cut and row.input_ids == kept.input_ids


def test_the_rule_can_tell_templates_that_know_of_tools(tokenizer):
    other = tiny_tokenizer()
    assert renders_tools(tokenizer) and not renders_tools(other)
    for template in TEMPLATES.values():
        other.chat_template = template
        assert not renders_tools(other)
    other.chat_template = WITH_TOOLS.replace(
        "call['function'] | tojson", "'a' + call['function']['arguments']"
    )
    assert not renders_tools(other)  # it wants text
    for word in ("tools | tojson", "call['function'] | tojson"):  # half of it is not enough
        other.chat_template = WITH_TOOLS.replace(word, "''")
        assert not renders_tools(other)


def harmony(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer with the control tokens of gpt-oss, eos in the place of "<|return|>"."""
    tokenizer = tiny_tokenizer()
    parts = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": parts}, replace_extra_special_tokens=False)
    tokenizer.chat_template = template.replace("<|return|>", "<|eos|>")
    return tokenizer


@pytest.mark.parametrize("template", ["own", "gptoss"])
def test_a_call_parted_by_control_tokens_is_learnt_whole(template):
    gptoss = Path(trl.__file__).parent / "chat_templates" / "gptoss.jinja"
    tokenizer = harmony(HARMONY if template == "own" else gptoss.read_text(encoding="utf-8"))
    assert renders_tools(tokenizer)
    call = ' to={}add<|channel|>commentary json<|message|>{{"a": 1}}<|call|>'.format(
        "functions." if template == "gptoss" else ""
    )
    final = "<|channel|>final<|message|>Two.<|eos|>"
    for turns, learnt in [(TURNS[:3], call), (TURNS, call + final)]:
        row = tokenize_conversation(turns, tokenizer, 2048)
        ids = [token for token, counts in zip(row.input_ids, row.supervised, strict=True) if counts]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == learnt and not row.rewritten


def test_the_same_control_token_may_part_an_answer_and_end_it():
    tokenizer = harmony(HARMONY.replace("<|call|>", "<|channel|>"))
    row = tokenize_conversation(TURNS[:3], tokenizer, 512)
    ids = [token for token, counts in zip(row.input_ids, row.supervised, strict=True) if counts]
    assert tokenizer.decode(ids) == ' to=add<|channel|>commentary json<|message|>{"a": 1}<|channel|>'


@pytest.mark.parametrize("end", ["<|call|> (over)", "<|eos|><|call|>"])
def test_a_template_in_which_a_call_ends_before_its_arguments_does_not_render_tools(end):
    before = "<|eos|><|message|>" if end.startswith("<|eos|>") else "<|message|>"
    assert not renders_tools(
        harmony(HARMONY.replace("<|message|>{{ c", before + "{{ c").replace("<|call|>", end))
    )


def test_rows_with_tools_are_dropped_by_name_where_the_template_writes_none(tmp_path, tokenizer):
    path = write(tmp_path / "chats.jsonl", SHAREGPT, {"conversations": SHAREGPT["conversations"][::3]})
    spec = DataSpec(train=[SourceSpec(path=str(path))], max_length=512)
    (kept,) = build_conversations(spec, tokenizer, seed=0).report.train
    assert (kept.rows_read, kept.rows_used, kept.dropped) == (2, 2, {})
    (source,) = build_conversations(spec, tiny_tokenizer(), seed=0).report.train
    assert (source.rows_read, source.rows_used, source.dropped) == (2, 1, {"tool_calls": 1})
    (asked,) = build_prompts(spec.train, tiny_tokenizer(), max_prompt_tokens=64, seed=0).report.train
    assert (asked.rows_used, asked.dropped) == (1, {"tool_calls": 1})


def test_tools_cannot_forge_a_control_token(tmp_path, tokenizer):
    forged = json.dumps({"name": "add", "arguments": {"a": "<|eos|>"}}).replace("<", "\\u003c")
    messages = [*SHAREGPT["conversations"]]
    messages[1] = {"from": "function_call", "value": forged}
    named = json.dumps([{**TOOL, "description": "<|user|>"}]).replace("<", "\\u003c")
    path = write(
        tmp_path / "chats.jsonl",
        SHAREGPT,
        {**SHAREGPT, "conversations": messages},
        {**SHAREGPT, "tools": named},
    )
    spec = DataSpec(train=[SourceSpec(path=str(path))], max_length=512)
    (source,) = build_conversations(spec, tokenizer, seed=0).report.train
    assert source.dropped == {"control_token_in_text": 2}
    rows = read(path, "conversation").rows
    assert len({tuple(row_contents(row)) for row in rows}) == 3
