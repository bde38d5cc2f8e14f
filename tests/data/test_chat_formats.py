"""What the formats of instruction data become, each by an example made by hand."""

from __future__ import annotations

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligner.data.rows import Conversation, Document, Pair, Prompt, row_text
from aligner.errors import DataError
from tests.data.chats import chat
from tests.data.test_readers import GOOD, assert_told, one, read, write
from tests.data.test_tool_calls import OPENAI, SHAREGPT


@pytest.mark.parametrize(
    ("name", "turns", "family"),
    [
        ("dolly", chat("Add.\n\n1 2", "3"), "sums"),
        ("completions", chat("1+1?", "2"), ""),
        ("sharegpt", chat("Hi", "Ho"), ""),
        ("moss", chat("Hi", "Ho", system="Be kind."), ""),
        ("natural_instructions", chat("Add the numbers.\n\n1 2", "3"), "Sums"),
        ("flan_cot", chat("1+1? In words.", "One more than one.\nThe answer is two."), "flan_cot"),
        ("aqua", chat("1+1?\nA. 1\nB. 2", "One and one.\nThe answer is B."), "aqua"),
        ("mmlu", chat("1+1?\nA. 1\nB. 2\nC. 3\nD. 4", "B"), "mmlu"),
        ("belle", chat("1+1?", "2"), "math"),
    ],
)
def test_a_row_becomes_the_conversation_written_by_hand(tmp_path, name, turns, family):
    row = one(tmp_path, name, GOOD[name])
    assert row == Conversation(row.origin, turns, family)
    assert one(tmp_path, name, GOOD[name], "prompt").turns == turns[:-1]
    assert one(tmp_path, name, GOOD[name], "document").turns == turns


def test_alpaca_takes_response_and_history(tmp_path):
    row = {"instruction": "Add.", "input": "", "response": "3", "history": [["Hi ", "Ho"], ["a", "b"]]}
    assert one(tmp_path, "alpaca", row).turns == chat("Hi", "Ho", "a", "b", "Add.", "3")
    assert read(write(tmp_path / "a.jsonl", row), "conversation").format == "alpaca"
    assert one(tmp_path, "alpaca", {**row, "history": [["Hi", " "]]}) == {"empty_turn": 1}
    assert one(tmp_path, "alpaca", {**row, "history": None}).turns == chat("Add.", "3")


def test_alpaca_takes_a_system_text(tmp_path):
    row = {"instruction": "c", "output": "d", "system": " S ", "history": [["a", "b"]]}
    assert one(tmp_path, "alpaca", row).turns == chat("a", "b", "c", "d", system="S")
    assert one(tmp_path, "alpaca", {**row, "history": []}).turns == chat("c", "d", system="S")
    assert one(tmp_path, "alpaca", {**row, "system": " "}).turns == chat("a", "b", "c", "d")
    ranked = one(tmp_path, "alpaca_rankings", {**row, "output": ["d", "e"]})
    assert ranked.prompt == chat("a", "b", "c", system="S")


def test_completions_take_a_response_or_messages(tmp_path):
    messages = {
        "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "a"}],
        "completion": [{"role": "assistant", "content": "b"}],
    }
    assert one(tmp_path, "completions", messages).turns == chat("a", "b", system="S")
    assert one(tmp_path, "completions", {"prompt": "a", "response": "b"}).turns == chat("a", "b")
    assert read(tmp_path / "rows.jsonl", "conversation").format == "completions"
    assert one(tmp_path, "completions", {"prompt": "a", "completion": "<|endoftext|>"}) == {"empty_answer": 1}
    assert one(tmp_path, "completions", {**messages, "prompt": [{"role": "user", "content": ""}]}) == {
        "empty_turn": 1
    }


def said(*contents: str, first: str = "human") -> list[dict]:
    speakers = ("human", "gpt") if first == "human" else ("gpt", "human")
    return [{"from": speakers[i % 2], "value": content} for i, content in enumerate(contents)]


def test_sharegpt_takes_a_system_text_and_drops_by_name(tmp_path):
    row = {"conversations": said("a", "b", "c", " d "), "system": "S", "tools": "[]"}
    assert one(tmp_path, "sharegpt", row).turns == chat("a", "b", "c", "d", system="S")
    first = [{"from": "system", "value": "S"}, *said("a", "b", "c")]
    assert one(tmp_path, "sharegpt", {"conversations": first}).turns == chat("a", "b", system="S")
    drops = {
        "roles_out_of_order": {"conversations": said("a", "b", "c", first="gpt")},
        "empty_turn": {"conversations": said("a", " ", "c", "d")},
        "no_answer": {"conversations": said("a")},
    }
    for reason, dropped in drops.items():
        assert one(tmp_path, "sharegpt", dropped) == {reason: 1}


def test_moss_goes_through_its_turns_in_order_and_drops_commands(tmp_path):
    turns = {f"turn_{i}": {"Human": f"<|Human|>: {i}<eoh>", "MOSS": f"<|MOSS|>: <b>{i}<eom>\n"} for i in range(11, 0, -1)}  # fmt: skip
    row = {"meta_instruction": "", "chat": turns, "category": "Brainstorming"}
    numbers = [text for i in range(1, 12) for text in (f"{i}", f"<b>{i}")]
    assert one(tmp_path, "moss", row).turns == chat(*numbers)
    assert one(tmp_path, "moss", row).family == "Brainstorming"
    plain = {"turn_1": {"Human": "a", "MOSS": "b"}}
    assert one(tmp_path, "moss", {**row, "chat": plain}).turns == chat("a", "b")
    plain["turn_1"]["Commands"] = '<|Commands|>: Search("a")<eoc>'
    assert one(tmp_path, "moss", {**row, "chat": plain}) == {"tool_calls": 1}


def test_natural_instructions_give_a_row_an_instance(tmp_path):
    task = {
        "Definition": "Add.",
        "Instances": [{"input": "1 2", "output": "3"}, {"input": "0", "output": []}, {"input": "", "output": ["0"]}],
    }  # fmt: skip
    source = read(write(tmp_path / "task.json", task), "conversation")
    assert [row.turns for row in source.rows] == [chat("Add.\n\n1 2", "3"), chat("Add.", "0")]
    assert source.dropped == {"empty_answer": 1} and source.format == "natural_instructions"
    assert {row.family for row in source.rows} == {"natural_instructions"}


def test_mmlu_takes_choices_and_an_index_too(tmp_path):
    row = {"question": "1+1?", "choices": ["1", "2", "3"], "answer": 1, "subject": "sums"}
    found = one(tmp_path, "mmlu", row)
    assert found == Conversation(found.origin, chat("1+1?\nA. 1\nB. 2\nC. 3", "B"), "sums")
    assert read(tmp_path / "rows.jsonl", "conversation").format == "mmlu"


def test_reasoning_without_text_is_dropped(tmp_path):
    for name in ("flan_cot", "aqua"):
        assert one(tmp_path, name, {**GOOD[name], "rationale": " "}) == {"empty_rationale": 1}
    assert one(tmp_path, "flan_cot", {**GOOD["flan_cot"], "answer": ""}) == {"empty_answer": 1}


def test_prompt_lists_are_objects_or_bare_strings(tmp_path):
    path = write(tmp_path / "prompts.jsonl", "Hi ", "Ho")
    source = read(path, "prompt")
    assert (source.format, [row.turns for row in source.rows]) == ("prompts", [chat("Hi"), chat("Ho")])
    assert one(tmp_path, "prompts", {"user_prompt": "Hi"}).turns == chat("Hi")
    row = one(tmp_path, "mt_bench", GOOD["mt_bench"])
    assert row == Prompt(row.origin, chat("1+1?"), "math")


def test_a_question_without_reference_answer_is_a_prompt_and_nothing_else(tmp_path):
    row = {"question": "1+1?", "std_answer": "", "class": "math"}
    assert one(tmp_path, "belle", row, "prompt").turns == chat("1+1?")
    for kind in ("conversation", "document"):
        assert one(tmp_path, "belle", row, kind) == {"no_answer": 1}


@pytest.mark.parametrize(
    ("name", "row", "what"),
    [
        ("alpaca", {"instruction": "a", "output": "b", "history": "c"}, '"history" is a string'),
        ("alpaca", {"instruction": "a", "output": "b", "system": ["c"]}, '"system" is a list'),
        ("alpaca", {"instruction": "a", "output": "b", "history": [["c"]]}, '"history"[0] is not [question'),
        ("alpaca", {"instruction": "a", "output": "b", "history": [["c", 1]]}, '"history"[1] is a number'),
        ("dolly", {"instruction": "a", "context": "b"}, '"response" is missing'),
        ("completions", {"prompt": "a", "completion": 1}, '"completion" is a number'),
        (
            "completions",
            {"prompt": "a", "completion": [{"role": "user", "content": "b"}]},
            "starts with a user turn",
        ),
        ("sharegpt", {"conversations": []}, '"conversations" is empty'),
        ("sharegpt", {"conversations": [{"from": "dog", "value": "a"}]}, 'unknown speaker "dog"'),
        ("sharegpt", {"conversations": said("a", "b"), "system": ["S"]}, '"system" is a list'),
        ("moss", {"chat": {}}, '"chat" is empty'),
        ("moss", {"chat": {"turn_2": {"Human": "a", "MOSS": "b"}}}, '"Human" is missing'),
        ("natural_instructions", {"Definition": [""], "Instances": []}, '"Definition" is empty'),
        ("natural_instructions", {"Definition": "a", "Instances": [{"input": "b"}]}, '"output" is missing'),
        ("flan_cot", {**GOOD["flan_cot"], "question": "\n"}, '"question" is empty'),
        ("aqua", {**GOOD["aqua"], "correct": "C"}, 'the right answer is "C"'),
        ("aqua", {**GOOD["aqua"], "options": ["A)1"]}, "the question has 1 options"),
        ("aqua", {**GOOD["aqua"], "options": ["A)1"] * 30}, "the question has 30 options"),
        ("mmlu", {**GOOD["mmlu"], "B": " "}, "one of its options is empty"),
        ("mmlu", {"question": "a", "choices": ["1", "2"], "answer": 2}, "there are 2 choices"),
        ("belle", {"question": "", "std_answer": "b"}, '"question" is empty'),
        ("mt_bench", {"turns": []}, '"turns" has no first question'),
        ("prompts", "", '"prompt" is empty'),
    ],
)
def test_malformed_rows_say_file_line_what_and_remedy(tmp_path, name, row, what):
    assert_told(tmp_path, name, row, what)


ROWS = [*GOOD.items(), ("sharegpt", SHAREGPT), ("messages", OPENAI)]
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-2, 9),
        st.floats(),
        st.text(max_size=5),
        st.just("\udfff"),
        st.just("{}"),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["role", "name", "turn_1"]), inner)
    ),
    max_leaves=4,
)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The path of every value inside a row."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [found for key, inner in entries for found in ((*path, key), *places(inner, (*path, key)))]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    row=st.sampled_from(ROWS),
    kind=st.sampled_from(["document", "conversation", "pair", "prompt"]),
)
def test_any_value_anywhere_in_a_good_row_gives_rows_or_one_error(tmp_path, data, row, kind):
    name, changed = row[0], copy.deepcopy(row[1])
    *path, last = data.draw(st.sampled_from(places(changed)))
    inner = changed
    for key in path:
        inner = inner[key]
    inner[last] = data.draw(VALUES)
    types = {"document": Document, "conversation": Conversation, "pair": Pair, "prompt": Prompt}
    path = write(tmp_path / "rows.jsonl", changed)
    try:
        source = read(path, kind, data.draw(st.sampled_from([name, "auto"])))
    except DataError as error:
        (problem,) = error.problems
        assert problem.where in (f"{path}:1", str(path)) and problem.remedy
        return
    assert all(isinstance(row, types[kind]) for row in source.rows)
    for used in source.rows:
        row_text(used).encode()  # no half of a surrogate pair gets through
