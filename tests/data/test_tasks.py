"""Task files: what they say, what is wrong with them, and what becomes of their rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from aligner.data.readers import read_source, source_files
from aligner.data.readers.tasks.file import read_task_file
from aligner.data.readers.tasks.task import load_task
from aligner.data.readers.tasks.template import Rendering
from aligner.data.rows import Example
from aligner.errors import DataError
from aligner.recipe.data import SourceSpec
from tests.data.real import real
from tests.data.tasks import NLI, nli_rows, write_task

SIMPLE = 'name: t\nrows: t.jsonl\ntemplates:\n  - {name: a, input: "{{ q }}?", target: "{{ a }}"}\n'


def read(path: str, **keys: object):
    return read_source(SourceSpec(path=path, format="tasks", **keys), "conversation")


def fault(path: str, **keys: object) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **keys)
    return str(caught.value)


def rendered(row: Example, name: str) -> tuple[str, str]:
    """Input and target of a row by a template of this name."""
    (template,) = (each for each in (*row.task.templates, *row.task.rationales) if each.written.name == name)
    found = template.render(row.fields, row.origin, lambda draw: draw)
    assert isinstance(found, Rendering), found
    return found.input, found.target


def test_a_row_by_every_template_worked_by_hand(tmp_path):
    source = read(write_task(tmp_path), rationale=0.5)
    assert (len(source.rows), source.format, source.rows_read) == (40, "tasks", 40)
    row = source.rows[3]
    assert row.family == "entailment" and row.origin.line == 4
    assert rendered(row, "claim") == ("Tom has 3 cats. Claim: Tom has 4 cats. True?", "no")
    assert rendered(row, "options") == ("Tom has 3 cats.\nTom has 4 cats.\n- no\n- yes", "no")
    assert rendered(row, "write") == ("Write a claim whose answer is no: Tom has 3 cats.", "Tom has 4 cats.")
    assert rendered(row, "steps") == (
        "Tom has 3 cats. Claim: Tom has 4 cats. Think first.", "3 is 3. So no.",
    )  # fmt: skip


def test_only_what_templates_read_is_kept_of_a_row(tmp_path):
    path = write_task(tmp_path)
    assert sorted(read(path).rows[0].fields) == ["hypothesis", "label", "premise"]
    assert sorted(read(path, rationale=1.0).rows[0].fields) == ["hypothesis", "label", "premise", "why"]


def test_which_templates_a_source_uses(tmp_path):
    path = write_task(tmp_path)

    def names(**keys: object) -> tuple[list[str], list[str]]:
        task = read(path, **keys).rows[0].task
        return [t.written.name for t in task.templates], [t.written.name for t in task.rationales]

    assert names() == (["claim", "options", "write"], [])
    assert names(rationale=0.1) == (["claim", "options", "write"], ["steps"])
    assert names(templates="original") == (["claim", "options"], [])
    assert names(templates="none") == (["none"], [])


def test_without_templates_there_are_the_inputs_alone(tmp_path):
    row = read(write_task(tmp_path), templates="none").rows[1]
    assert rendered(row, "none") == ("Tom has 1 cats.\nTom has 2 cats.", "no")
    message = fault(write_task(tmp_path, SIMPLE, [{"q": "1", "a": "2"}], "t"), templates="none")
    assert message.startswith(f"{tmp_path / 't.yaml'}: templates: none needs the inputs and the target")


def test_files_that_a_task_names_belong_to_the_source(tmp_path):
    spec = SourceSpec(path=write_task(tmp_path), format="tasks")
    assert [file.name for file in source_files(spec)] == ["nli.yaml", "nli.jsonl"]
    before = read_source(spec, "conversation").sha256()
    write_task(tmp_path, rows=nli_rows(41))
    assert read_source(spec, "conversation").sha256() != before


def test_a_folder_and_auto_find_task_files(tmp_path):
    write_task(tmp_path / "tasks", SIMPLE, [{"q": "1", "a": "2"}], "t")
    assert len(read(str(tmp_path / "tasks")).rows) == 1
    auto = read_source(SourceSpec(path=str(tmp_path / "tasks/*.yaml")), "conversation")
    assert (auto.format, len(auto.rows)) == ("tasks", 1)


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_tables_of_text_have_the_integers_that_the_task_lists(tmp_path, suffix):
    text = SIMPLE.replace("t.jsonl", f"t.{suffix}").replace('"{{ a }}"', "\"{{ ['x', 'y'][a] }}\"")
    path = write_task(tmp_path, text, [], "t")
    comma = "," if suffix == "csv" else "\t"
    (tmp_path / f"t.{suffix}").write_text(f"q{comma}a\nfirst{comma}1\nlast{comma}0\n")
    assert "fails on 2 of 2 rows" in fault(path)
    Path(path).write_text(text + "integers: [a]\n")
    assert [rendered(row, "a") for row in read(path).rows] == [("first?", "y"), ("last?", "x")]
    Path(path).write_text(text + "integers: [b]\n")
    assert fault(path).startswith(f'{path}:5:1: integers: no column "b"')
    (tmp_path / f"t.{suffix}").write_text(f"q{comma}a\nfirst{comma}one\n")
    Path(path).write_text(text + "integers: [a]\n")
    assert fault(path).startswith(f"{tmp_path}/t.{suffix}:2: ")


FAULTS = {
    "family: x\n": ('t.yaml:1:1: missing key "name"', 't.yaml:1:1: missing key "rows"'),
    "name: t\nrows: t.jsonl\n": ("t.yaml:1:1: a task needs templates, or a file of promptsource",),
    SIMPLE.replace("templates:", "templtes:"): ('t.yaml:3:1: unknown key "templtes"', 'did you mean "templates"?'),
    SIMPLE.replace("rows: t.jsonl", "rows: u.jsonl"): ("t.yaml:2:7: rows: no data file",),
    SIMPLE.replace("name: t", "name: a/b"): ("reports write task/template, so it has no /",),
    SIMPLE.replace('"{{ q }}?"', '"{{ qq }}?"'): (
        't.yaml:4:12: template "a" reads the field "qq", which no row of', 'did you mean "q"?',
    ),
    SIMPLE.replace('"{{ q }}?"', '"{{ q | uper }}"'): ('t.yaml:4:12: template "a", line 1: no filter "uper"', '"upper"'),
    SIMPLE.replace('"{{ q }}?"', '"{{ q.__class__ }}"'): ('the attribute "__class__" is private',),
    SIMPLE.replace('"{{ q }}?"', '"{% for i in range(99999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"'): (
        't.yaml:4:12: template "a" on row', "takes more than 10,000,000 units of work",
    ),
    SIMPLE.replace(', target: "{{ a }}"', ""): ('the template "a" has no target',),
    SIMPLE + '  - {name: a, input: "{{ q }}", target: b}\n': ('two templates are called "a"',),
    SIMPLE + '  - {name: b, input: "{{ r }}", target: "{{ s }}"}\n': ('reads the field "r"', 'reads the field "s"'),
    SIMPLE + "promptsource: p.yaml\n": ("t.yaml:5:15: promptsource: no file",),
    "- a\n": ("t.yaml:1: not a task file",),
    "": ("t.yaml:1: not a task file",),
    "name: !!python/object/apply:os.system [ls]\n": ("a tag (tag:yaml.org,2002:python/object/apply:os.system)",),
    "name: &a x\n": ("an anchor (&a)",),
}  # fmt: skip


@pytest.mark.parametrize("text", FAULTS, ids=lambda text: text[-40:].strip().replace("\n", " "))
def test_what_is_wrong_with_a_task_file_is_told_with_its_place(tmp_path, text):
    message = fault(write_task(tmp_path, text, [{"q": "1", "a": "2"}], "t"))
    for part in FAULTS[text]:
        assert part in message


def test_mistakes_of_all_task_files_are_told_at_once(tmp_path):
    write_task(tmp_path, SIMPLE.replace("q }}?", "q | uper }}?"), [{"q": "1", "a": "2"}], "t")
    write_task(tmp_path, SIMPLE.replace("name: t", "nme: t"), [], "u")
    message = fault(str(tmp_path / "*.yaml"))
    assert 'no filter "uper"' in message and 'unknown key "nme"' in message


def test_what_is_no_task_is_told_so(tmp_path):
    (tmp_path / "p.yaml").write_text("dataset: d\ntemplates:\n  one: !Template\n    jinja: '{{ q }} ||| b'\n")
    assert "a template file of PromptSource" in (message := fault(str(tmp_path / "p.yaml")))
    assert "write a task file with name:, rows: and promptsource: p.yaml" in message
    (tmp_path / "chat.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    with pytest.raises(
        DataError, match='format "alpaca" has no templates\n    leave shots out of this source'
    ):
        read_source(SourceSpec(path=str(tmp_path / "chat.jsonl"), shots=2), "conversation")


def test_rows_that_no_template_fits_are_dropped_by_reason(tmp_path):
    text = SIMPLE + '  - {name: b, input: "{% if q != \'d\' %}{{ q }}{% endif %}", target: "{{ a }}"}\n'
    rows = [{"q": f"{i}", "a": "b"} for i in range(300)]
    rows += [{"q": "c", "a": ""}, {"q": " ", "a": "b"}, {"q": "d", "a": None}, {"q": "d", "a": "e"}]
    text = text.replace("{{ q }}?", "{{ q }}")
    source = read(write_task(tmp_path, text, rows, "t"))
    assert source.dropped == {"empty_target": 1, "empty_input": 1, "template_failed": 1}
    assert source.rows_read == 304 == len(source.rows) + 3
    assert source.samples["template_failed"][0].origin.line == 303


def test_a_template_that_fails_on_more_than_one_row_of_a_hundred_is_wrong(tmp_path):
    rows = [{"q": "x", "a": "b"}] * 98 + [{"q": "y"}] * 2
    message = fault(path := write_task(tmp_path, SIMPLE, rows, "t"))
    assert (
        message.startswith(f"{path}:4:12: ")
        and f"fails on 2 of 100 rows, first on {tmp_path}/t.jsonl:99" in message
    )
    assert "'a' is undefined" in message
    assert "mend or delete the rows, or guard it in the template: {% if field is defined %}" in message
    assert message.endswith("; one row, or one in 100, may fail")
    wrong = SIMPLE.replace("{{ a }}", "{{ a + 1 }}")
    alone = fault(write_task(tmp_path, wrong, rows[:1], "t"))  # it fails on all the rows there are
    assert "fails on 1 of 1 rows" in alone and "mend or delete the row, or" in alone
    rows[-1] = rows[0]
    for some in (rows, rows[90:]):  # an odd row is dropped by name, of however few
        assert read(write_task(tmp_path, SIMPLE, some, "t")).dropped == {"template_failed": 1}


def test_reasons_asked_for_must_be_there(tmp_path):
    message = fault(write_task(tmp_path, SIMPLE, [{"q": "1", "a": "2"}], "t"), rationale=0.1)
    assert "no template is marked rationale: true" in message
    only = SIMPLE.replace("{name: a,", "{name: a, rationale: true,")
    assert "give the source rationale: 1" in fault(write_task(tmp_path, only, [{"q": "1", "a": "2"}], "t"))
    assert len(read(write_task(tmp_path, only, [{"q": "1", "a": "2"}], "t"), rationale=1.0).rows) == 1


def test_rows_of_tasks_are_conversations_and_nothing_else(tmp_path):
    with pytest.raises(DataError, match='format "tasks" does not give pair rows'):
        read_source(SourceSpec(path=write_task(tmp_path), format="tasks"), "pair")


# Real templates over real fields.

TABLES = {
    "glue/mrpc": {"sentence1": "A cat.", "sentence2": "One cat.", "label": 1, "idx": 0},
    "openbookqa/main": {"question_stem": "The sun is", "choices": {"text": ["hot", "wet", "red", "old"], "label": ["A", "B", "C", "D"]}, "answerKey": "A"},
    "piqa": {"goal": "Boil water", "sol1": "Heat it", "sol2": "Freeze it", "label": 0},
    "super_glue/boolq": {"question": "is it hot", "passage": "The sun is hot.", "label": 1},
    "super_glue/rte": {"premise": "A cat sat.", "hypothesis": "A cat sat down.", "label": 0},
    "trec": {"text": "What is NASA ?", "coarse_label": 0, "fine_label": 0},
    "winogrande/winogrande_xl": {"sentence": "Tom saw Bob since _ was near.", "option1": "Tom", "option2": "Bob", "answer": "2"},
    "xsum": {"document": "A long story.", "summary": "Short.", "id": "1"},
    "yelp_polarity": {"text": "Good food.", "label": 1},
    "ag_news": {"text": "Oil is dear.", "label": 2},
    "imdb": {"text": "A fine film.", "label": 1},
    "rotten_tomatoes": {"text": "a fine film .", "label": 1},
}  # fmt: skip
# Templates that write nothing of this row, counted in the file: those with {% if coarse_label == 1 %} up to 5.
UNFIT = {"trec": 9}


@pytest.mark.parametrize("name", TABLES)
def test_every_file_of_promptsource_renders(tmp_path, name):
    template_file = real(f"promptsource/{name}/templates.yaml")
    path = write_task(
        tmp_path, f"name: t\nrows: t.jsonl\npromptsource: {template_file}\n", [TABLES[name]], "t"
    )
    (row,) = read(path).rows
    written = Path(template_file).read_text(encoding="utf-8").count("!Template\n")
    assert len(row.task.templates) == written > 5
    found = [each.render(row.fields, row.origin, lambda draw: draw) for each in row.task.templates]
    assert Counter(type(each).__name__ for each in found)["Unfit"] == UNFIT.get(name, 0), found
    assert all(getattr(each, "reason", "") in ("", "empty_input") for each in found)


def test_promptsource_rows_worked_by_hand(tmp_path):
    def row(name: str) -> Example:
        text = f"name: t\nrows: t.jsonl\npromptsource: {real(f'promptsource/{name}/templates.yaml')}\n"
        return read(write_task(tmp_path, text, [TABLES[name]], "t")).rows[0]

    assert rendered(row("super_glue/rte"), "can we infer") == (
        'Suppose A cat sat. Can we infer that "A cat sat down."? Yes or no?', "Yes",
    )  # fmt: skip
    assert rendered(row("winogrande/winogrande_xl"), "does underscore refer to") == (
        "Tom saw Bob since _ was near. In the previous sentence, does _ refer to Tom or  Bob?", "Bob",
    )  # fmt: skip
    assert rendered(row("trec"), "fine_grained_ABBR") == (
        "Is this question asking for an abbreviation, expression abbreviated?\nWhat is NASA ?", "abbreviation",
    )  # fmt: skip
    assert rendered(row("openbookqa/main"), "pick_using_id") == (
        "The sun is\n\nA -> hot\n\nB -> wet\n\nC -> red\n\nD -> old\n\nIs the right answer A, B, C or D ?", "A",
    )  # fmt: skip


P3 = {
    "ag_news": ("classify_question_first", "What label best describes this news article?\n", "", "classify",
                ["World politics", "Sports", "Business", "Science and technology"]),
    "rotten_tomatoes": ("Movie_Expressed_Sentiment_2", "The following movie review expresses what sentiment? ", "",
                        "Movie Expressed Sentiment", ["negative", "positive"]),
    "imdb": ("Movie_Expressed_Sentiment_2", "The following movie review expresses what sentiment? ", "",
             "Movie Expressed Sentiment", ["negative", "positive"]),
}  # fmt: skip


@pytest.mark.parametrize("name", P3)
def test_renderings_are_those_of_p3(tmp_path, name):
    """The oracle: P3, made by PromptSource. The fields are won from one template's rows, the other's are compared."""
    known, before, after, other, choices = P3[name]
    lines = Path(real(f"t0_p3/{name}_{known}.jsonl")).read_text(encoding="utf-8").splitlines()
    rows = []
    for line in map(json.loads, lines):
        answer = line["completion"].removesuffix("<|endoftext|>")
        text = line["prompt"].removeprefix(before).removesuffix("\n").removesuffix(after)
        assert len(text) < len(line["prompt"]) - len(before)
        rows.append({"text": text, "label": choices.index(answer)})
    text = f"name: t\nrows: t.jsonl\npromptsource: {real(f'promptsource/{name}/templates.yaml')}\n"
    found = [rendered(row, other) for row in read(write_task(tmp_path, text, rows, "t")).rows]
    stored = (
        Path(real(f"t0_p3/{name}_{other.replace(' ', '_')}.jsonl")).read_text(encoding="utf-8").splitlines()
    )
    wanted = [
        (row["prompt"].rstrip("\n"), row["completion"].removesuffix("<|endoftext|>"))
        for row in map(json.loads, stored)
    ]
    assert found == wanted and len(found) == 50


def test_promptsource_says_which_templates_turn_the_task_around(tmp_path):
    text = f"name: t\nrows: t.jsonl\npromptsource: {real('promptsource/piqa/templates.yaml')}\n"
    file = read_task_file(Path(write_task(tmp_path, text, [TABLES["piqa"]], "t")))
    assert {each.name for each in file.templates if not each.inverts} == {
        "what_is_the_correct_ending", "pick_correct_choice_with_choice_given_before_goal", "pick_correct_choice_index",
        "finish_sentence_with_correct_choice", "choose the most appropriate solution",
    }  # fmt: skip
    assert len(load_task(file, SourceSpec(path="x", templates="original")).templates) == 5


def test_tags_and_bars_of_promptsource_are_safe(tmp_path):
    (tmp_path / "p.yaml").write_text(
        "dataset: d\ntemplates:\n  one: !Template\n    answer_choices: a ||| {{ q }}\n    jinja: '{{ q }} ||| {{ answer_choices[1] }}'\n    name: first\n"
    )
    path = write_task(tmp_path, "name: t\nrows: t.jsonl\npromptsource: p.yaml\n", [{"q": "x ||| y"}], "t")
    assert rendered(read(path).rows[0], "first") == ("x ||| y", "x ||| y")  # a row's own bars divide nothing
    (tmp_path / "p.yaml").write_text("templates:\n  one: !!python/object/apply:os.system ['ls']\n")
    assert f"{tmp_path}/p.yaml:2:8: a tag" in fault(path)
    (tmp_path / "p.yaml").write_text("dataset: d\n")
    assert fault(path).startswith(f"{tmp_path}/p.yaml:1: no templates")
    (tmp_path / "p.yaml").write_text("templates:\n  one: !Template\n    name: x\n")
    assert "the template one has no jinja" in fault(path)
    (tmp_path / "p.yaml").write_text(
        "templates:\n  one: !Template\n    name: a\n    jinja: '{{ q }} ||| b'\n"
    )
    path = write_task(tmp_path, SIMPLE + "promptsource: p.yaml\n", [{"q": "x", "a": "y"}], "t")
    assert 'the task has a template "a" as well' in fault(path)


def test_the_sample_task_says_all_that_a_task_may_say():
    assert all(
        f"{key}:" in NLI
        for key in ("name", "family", "rows", "inputs", "target", "answer_choices", "inverts", "rationale")
    )
