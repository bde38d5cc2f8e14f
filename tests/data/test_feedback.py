"""Readers of human feedback: preferences, judgements, rankings, ratings and broken rules become pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligner.data.readers import SourceRows, read_source
from aligner.data.readers.detection import detect_format
from aligner.data.rows import Dropped, Pair, Rated
from aligner.errors import DataError
from aligner.recipe.data import SourceSpec
from tests.data.chats import chat
from tests.data.test_readers import GOOD, KIND, one, read, write
from tests.data.test_tool_calls import SHAREGPT, TURNS


def said(*contents: str, first: str = "user") -> list[dict[str, str]]:
    """Messages of the user and the assistant in turn."""
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


def answers_of(source: SourceRows) -> list[tuple[str, str]]:
    return [(row.chosen, row.rejected) for row in source.rows if isinstance(row, Pair)]


# Preferences


@pytest.mark.parametrize(
    "row",
    [
        {
            "prompt": said("a"),
            "chosen": said("x", first="assistant"),
            "rejected": said("y", first="assistant"),
        },
        {"prompt": "a", "chosen": said("a", "x"), "rejected": said("a", "y")},
        {"prompt": said("a"), "chosen": said("a", " x"), "rejected": said(" a", "y")},
        {"chosen": said("a", "x"), "rejected": said("a", "y")},
    ],
    ids=["prompt and answers", "prompt and dialogues", "messages thrice", "dialogues alone"],
)
def test_pairs_take_every_form_of_messages(tmp_path, row):
    path = write(tmp_path / "a.jsonl", {**row, "margin": 1, "kind": "k"})
    assert detect_format(path) == "pairs"
    (pair,) = read(path, "pair").rows
    assert pair == Pair(pair.origin, chat("a"), "x", "y", 1.0, "k")


def test_the_prompt_of_dialogues_is_what_they_share(tmp_path):
    system = [{"role": "system", "content": "S"}]
    row = {"chosen": system + said("a", "b", "c", "x"), "rejected": system + said("a", "b", "c", "y")}
    assert one(tmp_path, "pairs", row).prompt == chat("a", "b", "c", system="S")
    assert one(tmp_path, "pairs", {**row, "prompt": "c"}).prompt == chat("a", "b", "c", system="S")


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (said("a", "x"), said("b", "x"), "no_common_prompt"),
        (said("a"), said("a", "x"), "no_common_prompt"),
        (said("a", "x"), said("a", "y", "z"), "further_turns"),
        (said("a", "x", "z"), said("a", "x", "y"), "no_common_prompt"),
        (said("a", "x"), said("a", "x"), "answers_equal"),
        (said("a", "x"), said("a", " "), "empty_answer"),
        (said("", "x"), said("", "y"), "empty_turn"),
        (
            said("a", "b") + said("x", first="assistant"),
            said("a", "b") + said("y", first="assistant"),
            "roles_out_of_order",
        ),
    ],
)
def test_dialogues_that_are_no_pair_are_dropped_by_name(tmp_path, chosen, rejected, reason):
    assert one(tmp_path, "pairs", {"chosen": chosen, "rejected": rejected}) == {reason: 1}


def test_dialogues_must_share_the_prompt_that_is_given(tmp_path):
    row = {"prompt": "b", "chosen": said("a", "x"), "rejected": said("a", "y")}
    assert one(tmp_path, "pairs", row) == {"prompt_mismatch": 1}


def test_sharegpt_pairs_take_turns_or_strings_as_answers(tmp_path):
    turns = [("system", "S"), ("human", "a"), ("gpt", "b"), ("human", " c ")]
    row = {
        "conversations": [{"from": who, "value": what} for who, what in turns],
        "chosen": "x",
        "rejected": "y",
    }
    for answers in ({}, {"chosen": {"from": "gpt", "value": "x"}}):
        path = write(tmp_path / "a.jsonl", {**row, **answers})
        (pair,) = read(path, "pair").rows
        assert pair == Pair(pair.origin, chat("a", "b", "c", system="S"), "x", "y")
    assert one(tmp_path, "sharegpt_pairs", {**row, "chosen": " y"}) == {"answers_equal": 1}


@pytest.mark.parametrize(
    ("preference", "given"),
    [
        (1, ("one", "two")),
        (2, ("two", "one")),
        (1.2, ("one", "two")),
        (1.5, {"tie": 1}),
        (0, {"tie": 1}),
        (None, {"no_preference": 1}),
    ],
)
def test_alpaca_eval_names_the_better_output(tmp_path, preference, given):
    row = {"instruction": " Hi ", "output_1": "one", "output_2": "two", "preference": preference}
    found = one(tmp_path, "alpaca_eval", row)
    assert (found if isinstance(found, dict) else (found.chosen, found.rejected)) == given
    assert isinstance(found, dict) or found.prompt == chat("Hi")


def test_sharegpt_pairs_read_systems_and_tools_as_sharegpt_does(tmp_path):
    row = {**SHAREGPT, "conversations": SHAREGPT["conversations"][:-1], "chosen": "Two.", "rejected": "3."}
    pair = one(tmp_path, "sharegpt_pairs", row)
    assert (pair.prompt, pair.chosen) == (TURNS[:-1], "Two.")
    assert one(tmp_path, "sharegpt_pairs", {**row, "system": "S"}).prompt[0].content == "S"
    call = {"from": "function_call", "value": '{"name": "add", "arguments": {}}'}
    for broken in ({"tools": "no JSON"}, {"chosen": call}, {"rejected": {**call, "value": "{"}}):
        assert one(tmp_path, "sharegpt_pairs", {**row, **broken}) == {"tool_calls": 1}
    unanswered = {**row, "conversations": [*row["conversations"], *row["conversations"]]}
    assert one(tmp_path, "sharegpt_pairs", unanswered) == {"roles_out_of_order": 1}


# Judgements of single answers


def test_kto_pairs_what_is_desirable_with_what_is_not_for_one_prompt(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        {"messages": said("p", "good"), "label": True},
        {"messages": said("q", "alone"), "label": True},
        {"prompt": "p", "completion": "bad", "label": False},
        {"prompt": said("p"), "completion": said("worse", first="assistant"), "label": False},
        {"messages": said("p", "fine"), "label": True},
        {"messages": said("r", "poor"), "label": False},
    )
    source = read(path, "pair")
    assert answers_of(source) == [("good", "bad"), ("good", "worse"), ("fine", "bad"), ("fine", "worse")]
    assert {row.prompt for row in source.rows} == {chat("p")}
    assert [row.origin.line for row in source.rows] == [1, 1, 5, 5] and source.dropped == {"no_opposite": 2}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [(said("a"), "no_answer"), (said("x", first="assistant"), "no_prompt"),
     (said("a", "b") + said("c", first="assistant"), "roles_out_of_order")],
)  # fmt: skip
def test_judgements_without_prompt_or_answer_are_dropped_by_name(tmp_path, messages, reason):
    assert one(tmp_path, "kto", {"messages": messages, "label": True}) == {reason: 1}


def test_all_malformed_judgements_are_told_together(tmp_path):
    good = {"prompt": "p", "completion": "a", "label": True}
    bad = [{**good, "label": "yes"}, {**good, "completion": 3}, {"prompt": "p", "label": False}]
    path = write(tmp_path / "a.jsonl", good, bad[0], {**good, "label": False}, *bad[1:])
    with path.open("a") as file:
        file.write("no json\n")
    with pytest.raises(DataError) as caught:
        read(path, "pair", "kto")
    places = [problem.where for problem in caught.value.problems]
    assert places == [f"{path}:2", f"{path}:4", f"{path}:5", str(path)]
    assert caught.value.problems[-1].what == "4 rows cannot be read, the first 3 as told; 1 can"


def test_a_label_that_is_not_true_or_false_is_no_judgement(tmp_path):
    path = write(tmp_path / "a.jsonl", {"messages": said("a", "b"), "label": "greeting"})
    assert detect_format(path) == "messages"
    path = write(tmp_path / "a.jsonl", {"prompt": "a", "completion": "b", "label": "greeting"})
    assert detect_format(path) == "completions"


@pytest.mark.parametrize("kind", ["conversation", "document", "prompt"])
def test_judged_answers_are_never_taken_for_answers_to_learn(tmp_path, kind):
    (tmp_path / "b.csv").write_text("prompt,completion,label\na,b,False\n")
    rows = ({"messages": said("a", "b"), "label": False}, {"prompt": "a", "completion": "b", "label": True})
    for path in [tmp_path / "b.csv", *(write(tmp_path / f"{i}.jsonl", row) for i, row in enumerate(rows))]:
        with pytest.raises(DataError, match=f'format "kto" does not give {kind} rows'):
            read(path, kind)


def test_a_preference_that_has_its_conversation_too_is_a_preference(tmp_path):
    row = {"messages": said("a", "x"), "chosen": said("a", "x"), "rejected": said("a", "y")}
    for prompt in ({}, {"prompt": "a"}):
        assert detect_format(write(tmp_path / "a.jsonl", {**row, **prompt})) == "pairs"
    assert one(tmp_path, "messages", row, "conversation").turns == chat("a", "x")
    path = write(tmp_path / "a.jsonl", {**row, "prompt": "a"})
    for kind in ("conversation", "document", "prompt"):
        source = read(path, kind)
        assert source.format == "messages" and source.rows_read == len(source.rows) == 1
    assert read(path, "pair").format == "pairs"
    path = write(tmp_path / "a.jsonl", {"messages": said("a"), "chosen": "x", "rejected": "y"})
    with pytest.raises(DataError, match='format "messages" does not give pair rows'):
        read(path, "pair")


# Rankings


def test_ranked_outputs_become_all_pairs_after_their_history(tmp_path):
    row = {"instruction": "c", "input": "", "output": ["1", "2", "3"], "history": [["a", "b"]]}
    path = write(tmp_path / "a.jsonl", row, {**row, "input": "with", "history": None})
    source = read(path, "pair")
    assert answers_of(source) == [("1", "2"), ("1", "3"), ("2", "3")] * 2
    assert [row.prompt for row in source.rows] == [chat("a", "b", "c")] * 3 + [chat("c\n\nwith")] * 3


def node(text: str, *replies: dict, rank: int | None = None, user: bool = False, **more: object) -> dict:
    """A message of a tree: an answer, or the user's."""
    return {
        "text": text,
        "role": "prompter" if user else "assistant",
        "rank": rank,
        "replies": list(replies),
        **more,
    }


TREE = {
    "message_tree_id": "t",
    "prompt": node(
        "p",
        node(
            "second",
            node("never", user=True),
            node("why", node("so", rank=1), node("thus", rank=0), user=True),
            rank=1,
        ),
        node("first", node("stop", user=True), node("on", node("only"), user=True), rank=0),
        node("third", rank=2),
        node("unjudged"),
        node("gone", rank=3, deleted=True),
        user=True,
    ),
}


def test_trees_give_the_pairs_of_every_level_after_the_path_to_it(tmp_path):
    source = read(write(tmp_path / "a.jsonl", TREE), "pair")
    assert [(len(row.prompt), row.chosen, row.rejected) for row in source.rows] == [
        (1, "first", "second"), (1, "second", "third"), (1, "first", "third"), (3, "thus", "so"),
    ]  # fmt: skip
    assert source.rows[3].prompt == chat("p", "second", "why")
    assert source.dropped == {"deleted": 1, "unranked": 1, "single_answer": 1}


def test_what_follows_a_deleted_message_is_not_read(tmp_path):
    best, worst = node("best", rank=0), node("worst", rank=1)
    lost = node("lost", best, worst, user=True, deleted=True)
    answer = node("answer", lost, node("kept", best, worst, user=True), rank=0)
    gone = node("gone", node("why", best, worst, user=True), rank=1, deleted=True)
    tree = {"message_tree_id": "t", "prompt": node("p", answer, gone, node("other", rank=2), user=True)}
    source = read(write(tmp_path / "a.jsonl", tree), "pair")
    assert {row.prompt for row in source.rows} == {chat("p"), chat("p", "answer", "kept")}
    assert len(source.rows) == 2 and source.dropped == {"deleted": 1}
    (row,) = read(tmp_path / "a.jsonl", "conversation").rows
    assert row.turns == chat("p", "answer", "kept", "best")
    root = {**tree, "prompt": {**tree["prompt"], "deleted": True}}
    for kind in ("pair", "conversation", "prompt"):
        assert one(tmp_path, "oasst", root, kind) == {"deleted": 1}


def test_a_reply_whose_answers_are_all_deleted_does_not_go_on(tmp_path):
    unanswered = node("why", node("so", rank=0, deleted=True), user=True)
    answered = node("how", node("thus", rank=0), user=True)
    tree = {
        "message_tree_id": "t",
        "prompt": node("p", node("a", unanswered, answered, rank=0), user=True),
    }
    assert one(tmp_path, "oasst", tree, "conversation").turns == chat("p", "a", "how", "thus")


def test_trees_give_their_best_path_as_a_conversation(tmp_path):
    (row,) = read(write(tmp_path / "a.jsonl", TREE), "conversation").rows
    assert row.turns == chat("p", "first", "on", "only")
    assert one(tmp_path, "oasst", TREE, "document").turns == row.turns
    assert one(tmp_path, "oasst", TREE, "prompt").turns == row.turns[:-1]
    assert one(tmp_path, "oasst", {**TREE, "prompt": node("p", user=True)}, "conversation") == {
        "no_answer": 1
    }
    assert one(tmp_path, "oasst", {**TREE, "prompt": node("p", user=True)}) == {"no_answer": 1}
    empty = {**TREE, "prompt": node("p", node(" "), user=True)}
    assert one(tmp_path, "oasst", empty, "conversation") == {"empty_turn": 1}


def test_a_deep_tree_is_read(tmp_path):
    tree = node("end", rank=0)
    for depth in range(200):
        tree = node(str(depth), tree, user=depth % 2 == 0)
    path = write(tmp_path / "a.jsonl", {"message_tree_id": "t", "prompt": node("p", tree, user=True)})
    assert len(read(path, "conversation").rows[0].turns) == 202
    assert read(path, "pair").dropped == {"single_answer": 101}


# Questions and rules


def rated(*ratings: dict) -> dict:
    return {
        "prompt": "Hi",
        "answers": [{"text": str(i), "ratings": given} for i, given in enumerate(ratings)],
        "kind": "k",
    }


def weighted(path: Path, **criteria: float) -> SourceRows:
    return read_source(SourceSpec(path=str(path), criteria=criteria), "pair")


def test_ratings_become_pairs_by_their_weighted_sum(tmp_path):
    path = write(
        tmp_path / "a.jsonl", rated({"help": 3, "harm": 0}, {"help": 4, "harm": 2}, {"help": 2, "harm": 1})
    )
    # sums by hand: 3, 6, 3 | help alone: 3, 4, 2 | help - harm: 3, 2, 1 | 0.1 help + 0.2 harm: 0.3, 0.8, 0.4
    plain = weighted(path)
    assert answers_of(plain) == [("1", "0"), ("1", "2")] and plain.dropped == {"tie": 1}
    assert answers_of(weighted(path, help=1.0)) == [("1", "0"), ("0", "2"), ("1", "2")]
    assert answers_of(weighted(path, help=1.0, harm=-1.0)) == [("0", "1"), ("0", "2"), ("1", "2")]
    assert answers_of(weighted(path, help=0.1, harm=0.2)) == [("1", "0"), ("2", "0"), ("1", "2")]
    assert {row.kind for row in plain.rows} == {"k"} and not plain.rated


def test_sums_that_differ_by_rounding_alone_are_a_tie(tmp_path):
    path = write(tmp_path / "a.jsonl", rated({"a": 3, "b": 0}, {"a": 0, "b": 1}))
    assert 0.1 * 3 != 0.3 and weighted(path, a=0.1, b=0.3).dropped == {"tie": 1}


def test_annotators_are_averaged_and_kept_apart_for_their_agreement(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        rated({"help": [1, None, 4]}, {"help": [3, 3, None]}, {"help": [None, None, None]}),
    )
    source = weighted(path)
    assert answers_of(source) == [("1", "0")] and source.dropped == {"unrated": 1}  # means by hand: 2.5 and 3
    assert [(row.criterion, row.values) for row in source.rated] == [
        ("help", (1.0, None, 4.0)), ("help", (3.0, 3.0, None)), ("help", (None, None, None)),
    ]  # fmt: skip


def test_an_answer_that_lacks_a_criterion_is_not_compared(tmp_path):
    path = write(tmp_path / "a.jsonl", rated({"help": 1, "harm": 1}, {"help": 4}, {"help": 2, "harm": 1}))
    source = weighted(path)
    assert answers_of(source) == [("2", "0")] and source.dropped == {"unrated": 1}
    assert len(weighted(path, help=2.0).rows) == 3


def broken(*violated: list[str]) -> dict:
    return {
        "prompt": "Hi",
        "answers": [{"text": str(i), "violated": given} for i, given in enumerate(violated)],
    }


def test_rules_become_pairs_by_what_is_broken(tmp_path):
    path = write(tmp_path / "a.jsonl", broken(["rude", "false"], ["unsafe"], [], ["rude", "rude"]))
    # costs by hand: 2, 1, 0, 1 | rude 1, false 1, unsafe 5: 2, 5, 0, 1
    plain = weighted(path)
    assert answers_of(plain) == [("1", "0"), ("2", "0"), ("3", "0"), ("2", "1"), ("2", "3")]
    assert plain.dropped == {"tie": 1}
    heavy = weighted(path, rude=1.0, false=1.0, unsafe=5.0)
    assert answers_of(heavy) == [("0", "1"), ("2", "0"), ("3", "0"), ("2", "1"), ("3", "1"), ("2", "3")]


def test_a_rule_without_a_weight_is_an_error_where_others_have_one(tmp_path):
    path = write(tmp_path / "a.jsonl", broken([], []), broken(["rude"], ["fasle"]))
    with pytest.raises(DataError, match='the rule "fasle" has no weight') as error:
        weighted(path, rude=1.0, false=1.0)
    assert error.value.problems[0].where == f"{path}:2" and "rude, false" in error.value.problems[0].remedy


def test_criteria_are_refused_where_nothing_reads_them(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD["rankings"])
    with pytest.raises(DataError, match='format "rankings" has no criteria'):
        weighted(path, help=1.0)
    with pytest.raises(ValueError, match="for format ratings or rules alone, not pairs"):
        SourceSpec(path="a", format="pairs", criteria={"help": 1.0})


# Any row that is nearly right


NEARLY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.floats(), st.sampled_from(["a", "", "user", "assistant", "prompter"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["text", "rank", "role"]), inner)),
    max_leaves=4,
)  # fmt: skip


def places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Every place in a nested value."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(place for key, entry in entries for place in places(entry, (*path, key)))]


def put(value: object, path: tuple[object, ...], new: object) -> object:
    """A copy with `new` at a place."""
    if not path:
        return new
    if isinstance(value, dict):
        return {key: put(entry, path[1:], new) if key == path[0] else entry for key, entry in value.items()}
    return [put(entry, path[1:], new) if i == path[0] else entry for i, entry in enumerate(value)]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from([name for name in GOOD if KIND[name] == "pair"]))
def test_a_good_row_with_one_odd_value_gives_pairs_or_one_error_with_its_place(tmp_path, data, name):
    place = data.draw(st.sampled_from(places(GOOD[name])[1:]))
    path = write(tmp_path / "any.jsonl", GOOD[name], put(GOOD[name], place, data.draw(NEARLY)))
    try:
        source = read(path, "pair", name)
    except DataError as error:
        (problem,) = error.problems
        assert problem.where == f"{path}:2" and problem.remedy
    else:
        assert all(isinstance(row, Pair) for row in source.rows)
        assert source.rows_read == len(source.rows) + source.dropped.total()
        assert not any(isinstance(row, Dropped | Rated) for row in source.rows)
