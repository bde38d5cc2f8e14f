"""Rows of tasks as conversations: which template, behind which solved rows, in which epoch."""

from __future__ import annotations

import io
import json
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from aligner.data import instances
from aligner.data.build import Conversations, build_conversations
from aligner.data.instances import Renderer
from aligner.data.plan import SourcePlan, plan_sources, template_rows
from aligner.data.readers import SourceRows, read_source
from aligner.data.readers.tasks.template import in_random_order
from aligner.data.rows import Conversation
from aligner.data.show import show_dropped, show_rows, show_templates
from aligner.data.tokens import TokenRow
from aligner.errors import DataError
from aligner.preflight import check_ahead
from aligner.recipe.clean import RowCleanSpec
from aligner.recipe.data import DataSpec, DecontaminateSpec, HoldoutSpec, SourceSpec
from aligner.recipe.mixture import MixtureSpec
from aligner.recipe.stages import SftRecipe
from tests.data.tasks import NLI, nli_rows, write_task
from tests.tiny import tiny_tokenizer

# Rows are told from their text: "ask 7" is answered "said 7".
COUNTED = """\
name: counted
rows: counted.jsonl
templates:
  - {name: a, input: "ask {{ n }}", target: "said {{ n }}"}
  - {name: b, input: "Please ask {{ n }}", target: "I said {{ n }}"}
  - {name: c, input: "ask {{ n }} now", target: "well, {{ n }}"}
"""


def numbers(count: int) -> list[dict[str, object]]:
    return [{"n": n} for n in range(count)]


def source_of(path: str, **keys: object) -> SourceRows:
    return read_source(SourceSpec(path=path, format="tasks", **keys), "conversation")


def rendered(source: SourceRows, *, seed: int = 0, epochs: int = 1) -> list[list[Conversation]]:
    """Each epoch's rows of one source that is all there is."""
    renderer = Renderer(lambda row: None, seed=seed)
    renderer.show_solved([source])
    return [[renderer.conversation(row, source, epoch) for row in source.rows] for epoch in range(epochs)]


def build(train: list[SourceSpec], *, seed: int = 0, epochs: int = 1, **keys: object) -> Conversations:
    spec = DataSpec(train=train, max_length=512, **keys)
    return build_conversations(spec, tiny_tokenizer(), seed=seed, epochs=lambda rows: epochs)


def epochs_of(built: Conversations, count: int) -> list[list[TokenRow]]:
    return [[built.train[place] for place in built.mix.epoch(epoch)] for epoch in range(count)]


def plans_of(built: Conversations, epochs: int) -> list[SourcePlan]:
    return plan_sources(
        built.report, built.mix, [i for epoch in range(epochs) for i in built.mix.epoch(epoch)]
    )


def tasks(path: str, **keys: object) -> list[SourceSpec]:
    return [SourceSpec(path=path, format="tasks", **keys)]


def numbers_in(row: Conversation) -> tuple[list[int], int]:
    """(the solved rows before it, the row itself), by their numbers."""
    *before, own = [int(n) for n in re.findall(r"ask (\d+)", row.turns[0].content)]
    return before, own


def test_one_row_behind_two_solved_ones_word_by_word(tmp_path):
    path = write_task(tmp_path, COUNTED.partition("  - {name: b")[0], numbers(3), "counted")
    (rows,) = rendered(source_of(path, shots=2))
    for row in rows:
        (first, second), own = numbers_in(row)
        assert sorted([first, second, own]) == [0, 1, 2]
        asked, answered = row.turns
        assert asked.content == f"ask {first}\nsaid {first}\n\nask {second}\nsaid {second}\n\nask {own}"
        assert (asked.role, answered.role, answered.content) == ("user", "assistant", f"said {own}")
        assert (row.template, row.shots, row.family) == ("counted/a", 2, "counted")


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), count=st.integers(2, 30), few=st.integers(0, 3), more=st.integers(0, 4)
)
def test_no_row_is_shown_to_itself_nor_its_equals_nor_twice(tmp_path_factory, seed, count, few, more):
    rows = [
        {"n": n // 2, "id": n} for n in range(count)
    ]  # of each number there are two, told apart by an id alone
    path = write_task(tmp_path_factory.mktemp("t"), COUNTED, rows, "counted")
    source = source_of(path, shots=[few, few + more])
    fewer = 0  # rows are counted, not readings: those of the first epoch
    for number, epoch in enumerate(rendered(source, seed=seed, epochs=2)):
        assert [numbers_in(row)[1] for row in epoch] == [n // 2 for n in range(count)]
        for row in epoch:
            before, own = numbers_in(row)
            assert own not in before and len(set(before)) == len(before) == row.shots <= few + more
            fewer += row.shots < few and number == 0
            assert row.shots == len(before) and min(few, (count + 1) // 2 - 1) <= row.shots
    assert source.noted["fewer_shots"] >= fewer and source.noted.keys() <= {"fewer_shots"}


def test_solved_rows_are_written_as_the_row_is(tmp_path):
    (rows,) = rendered(source_of(write_task(tmp_path, COUNTED, numbers(50), "counted"), shots=[1, 3]))
    forms = {"counted/a": r"ask \d+\nsaid \d+\n\n", "counted/b": r"Please ask \d+\nI said \d+\n\n", "counted/c": r"ask \d+ now\nwell, \d+\n\n"}  # fmt: skip
    assert {row.template for row in rows} == set(forms)
    assert all(
        re.match(f"({forms[row.template]}){{{row.shots}}}(Please )?ask \\d+( now)?$", row.turns[0].content)
        for row in rows
    )


def test_the_rendering_is_a_function_of_seed_row_and_epoch(tmp_path):
    path = write_task(tmp_path, rows=nli_rows(60))
    first, second, third = rendered(source_of(path, rationale=0.3), seed=4, epochs=3)
    assert rendered(source_of(path, rationale=0.3), seed=4, epochs=2) == [first, second]
    assert rendered(source_of(path, rationale=0.3), seed=5)[0] != first != second != third
    source = source_of(path, rationale=0.3)
    # other rows, and their order, are nothing to a row
    source.rows = random.Random(0).sample(list(source.rows), 20)
    wanted = {row.origin.line: row for row in second}
    assert rendered(source, seed=4, epochs=2)[1] == [wanted[row.origin.line] for row in source.rows]
    moved = write_task(tmp_path / "elsewhere", rows=nli_rows(60))
    assert [row.turns for row in rendered(source_of(moved, rationale=0.3), seed=4)[0]] == [
        row.turns for row in first
    ]


def test_templates_shots_and_choices_are_drawn_evenly(tmp_path):
    source = source_of(write_task(tmp_path, rows=nli_rows(300)), shots=[0, 2], rationale=0.1)
    epochs = rendered(source, epochs=10)
    templates = Counter(row.template for rows in epochs for row in rows)
    shots = Counter(row.shots for rows in epochs for row in rows)
    assert abs(templates["nli/steps"] - 300) < 5 * 17  # binomial(3000, .1): 16.4
    assert all(abs(templates[f"nli/{name}"] - 900) < 5 * 25 for name in ("claim", "options", "write"))
    assert all(abs(shots[number] - 1000) < 5 * 26 for number in (0, 1, 2))
    asked = [row.turns[0].content for rows in epochs for row in rows if row.template == "nli/options"]
    ends = Counter(text[-11:] for text in asked)
    assert sum(ends.values()) == len(asked) and set(ends) == {"\n- yes\n- no", "\n- no\n- yes"}
    assert abs(ends["\n- yes\n- no"] - len(asked) / 2) < 5 * 15
    told = [row for rows in epochs for row in rows if row.template == "nli/options" and not row.shots]
    by_row = {line: {r.turns for r in told if r.origin.line == line} for line in range(1, 301)}
    assert sum(len(found) == 2 for found in by_row.values()) > 20  # the same row in another order, later


def test_tasks_do_not_show_each_others_rows(tmp_path):
    one = write_task(tmp_path / "one", COUNTED, numbers(20), "counted")
    other = write_task(
        tmp_path / "two",
        COUNTED.replace("name: counted", "name: other"),
        [{"n": n} for n in range(100, 120)],
        "counted",
    )
    renderer = Renderer(lambda row: None, seed=0)
    sources = [source_of(one, shots=3), source_of(other, shots=3)]
    renderer.show_solved(sources)
    first, second = ([renderer.written(source, row) for row in source.rows] for source in sources)
    assert max(n for row in first for n in numbers_in(row)[0]) < 20
    assert min(n for row in second for n in numbers_in(row)[0]) >= 100


def test_two_tasks_of_one_name_are_an_error_before_their_rows_are_shown_for_each_other(tmp_path):
    """Films and mails: a film's mood is no example of a mail's tone. Both are told before anything is trained, too."""
    mails = COUNTED.replace("ask", "write").replace("said", "wrote")
    films = write_task(tmp_path / "films", COUNTED, numbers(9), "counted")
    other = write_task(tmp_path / "mails", mails, [{"n": n} for n in range(20, 29)], "counted")
    said = rf'mails/counted.yaml:1:\d+: the task of {films} is called "counted", too'
    for train, holdout in (
        ([films, other], HoldoutSpec(rows=2)),
        ([films], HoldoutSpec(sources=tasks(other))),
    ):
        sources = [source for path in train for source in tasks(path)]
        with pytest.raises(DataError, match=said):
            build(sources, holdout=holdout)
        data = {"train": sources, "holdout": holdout, "max_length": 512}
        made = {"stage": "sft", "output": "x", "model": {"base": "x"}, "train": {"steps": 1}}
        with pytest.raises(DataError, match=said):
            check_ahead([SftRecipe.model_validate(made | {"data": DataSpec(**data)})])
    link = tmp_path / "elsewhere"
    link.symlink_to(tmp_path / "films")  # one file by two spellings is one task
    build([*tasks(films), *tasks(str(link / "counted.yaml"), templates="all")], holdout=HoldoutSpec(rows=2))


def test_a_row_that_two_sources_have_is_not_shown_to_itself_nor_twice(tmp_path):
    """Without templates the task reads fewer fields of a row, so that its text alone does not tell it."""
    text = COUNTED.replace("rows:", "inputs: [n]\ntarget: '{{ n }}'\nrows:").replace(
        '"ask {{ n }}"', '"ask {{ n }} {{ id }}"'
    )
    path = write_task(tmp_path, text, [{"n": n, "id": n} for n in range(5)], "counted")
    sources = [source_of(path, templates="none", shots=4), source_of(path, shots=4)]
    renderer = Renderer(lambda row: None, seed=0)
    renderer.show_solved(sources)
    for source in sources:
        for row in (renderer.written(source, row) for row in source.rows):
            told = [int(re.search(r"\d+", part)[0]) for part in row.turns[0].content.split("\n\n")]
            assert sorted(told) == [0, 1, 2, 3, 4]


def test_held_out_rows_are_neither_trained_on_nor_shown(tmp_path):
    tokenizer = tiny_tokenizer()
    path = write_task(tmp_path, COUNTED, numbers(60), "counted")
    built = build(tasks(path, shots=[0, 4]), epochs=3, holdout=HoldoutSpec(rows=20))

    def said(row) -> list[int]:
        return [
            int(n)
            for n in re.findall(
                r"ask (\d+)", tokenizer.decode(row.input_ids).replace(" ", "").replace("ask", "ask ")
            )
        ]

    held = {said(row)[-1] for row in built.holdout}
    first, second, third = epochs_of(built, 3)
    assert len(held) == 20 and len(built.train) == 3 * 40
    for rows in (first, second, third):
        assert {said(row)[-1] for row in rows} == set(range(60)) - held
        assert not {n for row in rows for n in said(row)} & held
    assert max(row.shots for row in built.holdout) > 0
    assert not {n for row in built.holdout for n in said(row)[:-1]} & held
    assert [said(row)[-1] for row in second] == [said(row)[-1] for row in first] and first != second != third
    assert epochs_of(built, 4)[3] == first
    (source,) = built.report.train
    assert source.rows_read == 60 == source.rows_used + source.dropped["held_out"]
    (plan,) = plans_of(built, 3)
    assert plan.templates == Counter(row.template for rows in (first, second, third) for row in rows)
    assert plan.shots == Counter(row.shots for rows in (first, second, third) for row in rows)
    assert (plan.rows, plan.epochs, plan.most) == (120, 3.0, 3)


def test_held_out_tasks_are_shown_training_rows_of_their_name(tmp_path):
    train = write_task(tmp_path / "train", COUNTED, numbers(30), "counted")
    held = write_task(tmp_path / "held", COUNTED, [{"n": n} for n in range(25, 50)], "counted")
    unseen = write_task(
        tmp_path / "unseen", COUNTED.replace("name: counted", "name: unseen"), [{"n": 99}], "counted"
    )
    holdout = HoldoutSpec(sources=[*tasks(held, shots=2), *tasks(unseen, shots=2)])
    built = build(tasks(train), holdout=holdout)
    assert built.report.train[0].dropped == {"in_holdout": 5} and len(built.train) == 25
    assert Counter((row.template.partition("/")[0], row.shots) for row in built.holdout) == {
        ("counted", 2): 25,
        ("unseen", 0): 1,
    }
    assert built.report.holdout[1].noted["fewer_shots"] == 1


def test_no_text_is_trained_on_that_a_held_out_row_may_be_written_as(tmp_path):
    """`why` differs, so the rows do; without it they read the same, in every template but the one that gives reasons."""
    rows = nli_rows(30)
    train = write_task(tmp_path / "train", rows=rows)
    other = [row | {"why": "other"} for row in rows[:10]]
    spec = HoldoutSpec(sources=tasks(write_task(tmp_path / "held", rows=other), rationale=0.5))
    built = build(tasks(train, rationale=0.5), holdout=spec, epochs=4)
    (source,) = built.report.train
    assert source.rows_used == 30 and source.noted["other_template"] > 0
    assert plans_of(built, 4)[0].templates["nli/steps"] >= 40
    assert build(tasks(train), holdout=spec).report.train[0].dropped == {"in_holdout": 10}


def test_a_held_out_conversation_is_not_written_by_a_template(tmp_path):
    train = write_task(tmp_path, COUNTED, numbers(30), "counted")
    chat = {
        "messages": [
            {"role": "user", "content": "Please ask 7"},
            {"role": "assistant", "content": "I said 7"},
        ]
    }
    (tmp_path / "held.jsonl").write_text(json.dumps(chat))
    holdout = HoldoutSpec(sources=[SourceSpec(path=str(tmp_path / "held.jsonl"))])
    built = build(tasks(train, shots=20), epochs=8, holdout=holdout)
    texts = [tiny_tokenizer().decode(row.input_ids) for row in built.train]
    assert not any("I said 7\n" in text or "I said 7<" in text for text in texts)
    assert any("said 7\n" in text for text in texts)


def test_a_held_out_row_of_a_task_is_not_trained_on_as_a_conversation_or_in_another_task(tmp_path):
    held = write_task(tmp_path, COUNTED, numbers(10), "counted")
    chats = [
        {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": told}]}
        for said, told in (
            ("Please ask 7", "I said 7"),
            ("Please ask 7", "I said so"),
            ("Please ask 70", "I said 70"),
        )
    ]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)))
    chat = SourceSpec(path=str(tmp_path / "chats.jsonl"), format="messages")
    built = build([chat], holdout=HoldoutSpec(sources=tasks(held)))
    assert built.report.train[0].dropped == {"in_holdout": 1} and built.report.train[0].rows_used == 2

    other = COUNTED.replace("name: counted", "name: other").replace("ask", "tell").replace("said", "told")
    (tmp_path / "other.yaml").write_text(other)
    built = build([*tasks(held), *tasks(str(tmp_path / "other.yaml"))], holdout=HoldoutSpec(rows=4))
    texts = [tiny_tokenizer().decode(row.input_ids) for row in (*built.train, *built.holdout)]
    lines = [int(re.findall(r"(?:ask|tell) (\d+)", text)[-1]) for text in texts]
    assert not set(lines[: len(built.train)]) & set(lines[len(built.train) :])
    assert sum(source.dropped.get("in_holdout", 0) for source in built.report.train) == 4


@pytest.mark.parametrize("other", ["tasks", "elsewhere"])
def test_a_table_is_one_table_however_tasks_spell_it(tmp_path, other):
    """tasks/../rows.jsonl and elsewhere/../rows.jsonl are one file: what is held out of it under one is under both."""
    rows = [{"n": n, "m": n} for n in range(10)]  # each task reads one of them: no text in common
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = COUNTED.replace("rows: counted.jsonl", "rows: ../rows.jsonl")
    one = write_task(tmp_path / "tasks", text, [], "counted")
    told = text.replace("name: counted", "name: told").replace("ask", "tell").replace("{{ n }}", "{{ m }}")
    two = write_task(tmp_path / other, told, [], "told")
    built = build([*tasks(one), *tasks(two)], holdout=HoldoutSpec(rows=4))
    texts = [tiny_tokenizer().decode(row.input_ids) for row in (*built.train, *built.holdout)]
    lines = [int(re.findall(r"(?:ask|tell) (\d+)", text)[-1]) for text in texts]
    assert not set(lines[: len(built.train)]) & set(lines[len(built.train) :])


def test_what_a_turned_task_asks_of_every_row_contaminates_none(tmp_path):
    turned = COUNTED + '  - {name: turn, inverts: true, input: "Write a number.", target: "{{ n }}"}\n'
    train = write_task(tmp_path, turned, numbers(30), "counted")
    built = build(tasks(train), holdout=HoldoutSpec(rows=4), decontaminate=DecontaminateSpec(holdout=True))
    assert built.report.train[0].dropped == {"held_out": 4}


def test_control_tokens_come_neither_from_fields_nor_from_templates(tmp_path):
    text = COUNTED.replace("ask {{ n }} now", "ask {{ n }} <|eos|>").replace("Please ask", "<|{{ f }}ask")
    rows = [{"n": 1, "f": "eos|>"}, {"n": "<|eos|>", "f": ""}, *({"n": n, "f": ""} for n in range(2, 40))]
    built = build(tasks(write_task(tmp_path, text, rows, "counted"), shots=5), epochs=2)
    (source,) = built.report.train
    assert source.dropped == {"control_token_in_text": 1} and source.rows_read == 40
    assert plans_of(built, 2)[0].templates.keys() == {"counted/a", "counted/b"}
    assert source.noted["other_template"] > 5
    eos = tiny_tokenizer().eos_token_id
    assert all(row.input_ids.count(eos) == 1 for row in built.train)


def test_a_cap_is_of_each_task_though_they_share_a_table(tmp_path):
    write_task(tmp_path, COUNTED, numbers(40), "counted")
    second = COUNTED.replace("name: counted", "name: second").replace("ask {{ n }}", "tell {{ n }}")
    (tmp_path / "second.yaml").write_text(second)
    built = build(tasks(str(tmp_path / "*.yaml"), cap=10))
    assert Counter(row.template.partition("/")[0] for row in built.train) == {"counted": 10, "second": 10}
    assert built.report.train[0].dropped == {"cap": 60}


def test_rows_are_cleaned_by_what_templates_read_of_them(tmp_path):
    rows = [{"n": f"{i} me@here.org", "id": i} for i in [*range(10), 3]]
    built = build(
        tasks(write_task(tmp_path, COUNTED, rows, "counted")),
        clean=RowCleanSpec(mask=["email"], deduplicate=True),
    )
    (source,) = built.report.train
    assert source.changed == {"masked_email": 11} and source.dropped == {"duplicate": 1}
    assert "<email>" in tiny_tokenizer().decode(built.train[0].input_ids)


def test_a_template_that_fails_too_often_in_a_later_look_stops_the_build(tmp_path):
    """Read, every third row tries template a first, and those are right; built, any row may draw it."""
    text = COUNTED.replace('"ask {{ n }}"', "\"ask {{ n }} {{ ['x'][n % 3] }}\"")
    path = write_task(tmp_path, text, numbers(90), "counted")
    assert len(source_of(path).rows) == 90
    with pytest.raises(
        DataError, match=r'counted.yaml:4:12: template "a" fails on \d+ of \d+ rows, first on'
    ):
        build(tasks(path))


def test_sources_without_tasks_are_the_same_in_every_epoch(tmp_path):
    chats = tmp_path / "chats.jsonl"
    chats.write_text(
        "".join(json.dumps({"instruction": f"Say {i}", "output": f"{i}"}) + "\n" for i in range(9))
    )
    alone = build([SourceSpec(path=str(chats))], epochs=5)
    assert len(alone.train) == 9 and alone.mix.rendered == []
    both = build([SourceSpec(path=str(chats), weight=2.0), *tasks(write_task(tmp_path))], epochs=3)
    first, *others = epochs_of(both, 3)
    assert len(first) == both.mix.rows_per_epoch == 18 + 40 and len(both.train) == 58 + 2 * 40
    assert [len(found) for found in both.mix.rendered] == [40, 40]  # not the rows that read the same
    for rows in others:
        assert all(now == before for now, before in zip(rows, first, strict=True) if not before.template)
        assert sum(now != before for now, before in zip(rows, first, strict=True)) > 15


def test_only_what_a_mixture_reads_is_rendered_for_an_epoch(tmp_path):
    """Ten rows of forty an epoch: all for the first, for their lengths, and ten more for each other one."""
    built = build(tasks(write_task(tmp_path)), epochs=3, mixture=MixtureSpec(rows=10))
    assert len(built.train) == 40 + 10 + 10 and built.mix.rows_per_epoch == 10
    assert sorted({place for epoch in (1, 2) for place in built.mix.epoch(epoch)}) == list(range(40, 60))
    (plan,) = plans_of(built, 3)
    assert sum(plan.templates.values()) == plan.rows == 30 and plan.most == 1


def test_rows_of_tasks_are_compared_with_evaluations_in_every_template(tmp_path):
    train = write_task(tmp_path, COUNTED, numbers(30), "counted")
    (tmp_path / "eval.jsonl").write_text(
        '{"prompt": "please ASK 7!"}\n{"prompt": "ask 8 now"}\n{"prompt": "ask it now"}\n'
    )
    against = DecontaminateSpec(against=[SourceSpec(path=str(tmp_path / "eval.jsonl"))])
    built = build(tasks(train), decontaminate=against)
    assert built.report.train[0].dropped == {"contaminated": 2} and len(built.train) == 28


def test_epochs_beyond_what_is_held_in_memory_begin_again(tmp_path, monkeypatch):
    monkeypatch.setattr(instances, "MAX_RENDERED", 100)
    assert len(build(tasks(write_task(tmp_path)), epochs=50).train) == 2 * 40
    few = MixtureSpec(rows=10)  # what no epoch reads takes no room
    assert len(build(tasks(write_task(tmp_path)), mixture=few, epochs=50).train) == 40 + 6 * 10


def test_answers_that_lose_their_end_in_later_epochs_count_too(tmp_path):
    text = NLI.replace('target: "{{ hypothesis }}"', 'target: "{{ hypothesis * 100 }}"')
    with pytest.raises(DataError, match=r"of 120 rows would have their answer cut"):
        build(tasks(write_task(tmp_path, text)), epochs=3)


def test_random_order_is_a_permutation_and_fair():
    draws = random.Random(1)
    orders = Counter(tuple(in_random_order(3, lambda _: draws.getrandbits(64))) for _ in range(6000))
    assert len(orders) == 6 and all(abs(count - 1000) < 5 * 29 for count in orders.values())
    assert sorted(in_random_order(1000, lambda _: draws.getrandbits(64))) == list(range(1000))
    taken: list[int] = []
    next(in_random_order(10**9, lambda last: taken.append(last) or 5))
    assert taken == [10**9 - 1]  # one draw for one number


def test_what_was_used_is_told(tmp_path):
    built = build(tasks(write_task(tmp_path), shots=[0, 1]), epochs=2)
    (told, shots) = template_rows(plans_of(built, 2))
    assert told.name == "task nli" and told.value == "80"
    counts = {name: int(n) for name, n in re.findall(r"(\w+): (\d+)", told.why)}
    assert set(counts) == {"claim", "options", "write"} and sum(counts.values()) == 80
    assert sum(int(n) for n in re.findall(r": (\d+)", shots.value)) == 80
    out = io.StringIO()
    console = Console(file=out, width=200)
    show_rows(built.train[:1], tiny_tokenizer(), console=console)
    show_templates(plans_of(built, 2), console=console)
    show_dropped(built.report, 1, console=console)
    row = built.train[0]
    assert f"1: entailment ({row.template}, {row.shots} shots), {len(row.input_ids)} tokens" in out.getvalue()
    assert f"task nli: 80  claim: {counts['claim']}, " in out.getvalue()
