"""Self-instruct's filters and pages: hand-worked ROUGE-L, reasons by name, what is read of a written page."""

from __future__ import annotations

import json
import random

import pytest

from aligner.data.bootstrap.filters import Novelty, instance_reasons, reason_against_instruction
from aligner.data.bootstrap.pages import instance_page, kind_page, read_instance, read_tasks, tasks_page
from aligner.data.bootstrap.tasks import Instance, InstructionTask, build_seed_tasks
from aligner.errors import DataError
from aligner.recipe.data import SourceSpec
from aligner.recipe.selfinstruct import SelfInstructSpec
from tests.data.real import real
from tests.data.tasks import nli_rows, write_task
from tests.tiny import tiny_tokenizer

SPEC = SelfInstructSpec(instructions=1)
SUM = InstructionTask("Add the numbers.", False, (Instance("1, 2", "3"),))
MOOD = InstructionTask("Is it happy or sad?", True, (Instance("", "happy"),))
TOKENIZER = tiny_tokenizer()


def lcs_by_definition(one: list[str], other: list[str]) -> int:
    if not one or not other:
        return 0
    if one[0] == other[0]:
        return 1 + lcs_by_definition(one[1:], other[1:])
    return max(lcs_by_definition(one[1:], other), lcs_by_definition(one, other[1:]))


@pytest.mark.parametrize(
    ("text", "seen", "rouge_l"),
    [
        ("Sort these three words", "Sort the words", 2 * 2 / 7),  # sort, words
        ("a b c d", "d c b a", 2 * 1 / 8),  # the order counts: one word in common order
        ("a b c", "A, B? c!", 1.0),  # case and punctuation aside
        ("a x b y c", "a b c", 2 * 3 / 8),  # not only neighbours
        ("a b", "c d", 0.0),
        ("写一首诗", "写一首歌", 2 * 3 / 8),  # each character is a word where none are spaced
    ],
)
def test_rouge_l_by_hand(text, seen, rouge_l):
    assert Novelty([seen]).rouge_l(text) == pytest.approx(rouge_l, abs=1e-12)


def test_rouge_l_is_its_definition_and_the_greatest_counts():
    draw = random.Random(0)
    texts = [[draw.choice("abcde") for _ in range(draw.randint(1, 8))] for _ in range(30)]
    for text in texts[:10]:
        wanted = max(
            2 * lcs_by_definition(text, other) / (len(text) + len(other))
            for other in texts
            if other is not text
        )
        others = Novelty(" ".join(other) for other in texts if other is not text)
        assert others.rouge_l(" ".join(text)) == pytest.approx(wanted, abs=1e-12)


def test_nothing_is_near_to_nothing():
    assert Novelty().rouge_l("Sort the words") == 0.0 and Novelty(["Sort"]).rouge_l("...") == 0.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Sort the words", "too_short"),
        ("Sort " + "the " * 150, "too_long"),
        ("1 plus 2 is what number?", "no_letter_first"),
        ("Look at this Picture of a cat.", "listed_words"),
        ("Please go to the nearest shop.", "listed_words"),
        ("Please go home to the shop.", None),  # the phrase is not there, though its words are
        ("Describe mapmaking to a child.", None),  # "map" is there as a part of a word only
        # seven of ten words in the same order: 2 x 7 / 20 = .7, which is not below .7
        ("one two three four five six seven x y z", "similar"),
        ("one two three four five six w x y z", None),  # .6
    ],
)
def test_instructions_are_dropped_for_a_named_reason(text, reason):
    seen = Novelty(["one two three four five six seven eight nine ten"])
    assert reason_against_instruction(text, seen, SPEC) == reason


def test_what_was_kept_is_new_no_more():
    novelty, text = Novelty(), "Tell a joke about two birds."
    assert reason_against_instruction(text, novelty, SPEC) is None
    novelty.add(text)
    assert reason_against_instruction(text, novelty, SPEC) == "similar"


def test_instances_are_dropped_for_a_named_reason():
    given = {
        Instance("a", ""): "empty_answer",
        Instance("b", "b"): "output_is_input",
        Instance("c", "Do it."): "output_is_instruction",
        Instance("d", "1"): "contradicting",
        Instance("d", "2"): "contradicting",
        Instance("e", "1"): None,
        Instance("f", "1"): None,  # another input may well have the same answer
    }
    assert instance_reasons("Do it.", list(given)) == list(given.values())
    twice = [Instance("e", "1")] * 3
    assert instance_reasons("Do it.", twice) == [None, "duplicate", "duplicate"]


def test_a_list_goes_on_with_the_next_number():
    page = tasks_page(["Add the numbers.", "Tell a joke."])
    assert (
        page.text == "Here is a list of different tasks.\n\nTask 1: Add the numbers.\nTask 2: Tell a joke.\n"
    )
    assert page.begun == "Task 3:"


@pytest.mark.parametrize(
    ("text", "finished", "found"),
    [
        ("Task 3: Sing.\nTask 4: Dance", True, [("Sing.", ""), ("Dance", "")]),
        ("Task 3: Sing.\nTask 4: Dance", False, [("Sing.", ""), ("Dance", "cut")]),
        ("Task 3: Sing.\nTask 4: Dance\n", False, [("Sing.", ""), ("Dance", "")]),
        ("Task 3: Sing.\nTask 4:", False, [("Sing.", ""), ("", "cut")]),
        ("Task 3: Sing.\nTask 4", False, [("Sing.", "")]),  # stopped in the next one's label
        ("Task 3: Sing.\nTa", False, [("Sing.", "")]),
        ("Task 3: Sing.\nTa", True, [("Sing.", "several_lines")]),
        ("Task 3: Sing.\nLoud.", False, [("Sing.", "several_lines")]),
        ("Task 3: Do:\n- a\n- b\nTask 4: Dance", True, [("Do:", "several_lines"), ("Dance", "")]),
        ("Sure!\nTask 3: Sing.", True, [("Sing.", "")]),  # what a chat model says before its list
        ("Task 3:\nTask 4: Dance", True, [("", ""), ("Dance", "")]),
        ("Task 3:\nSing.\n\nTask 4: Dance\n\n", False, [("Sing.", ""), ("Dance", "")]),
        ("Sing.", True, []),
        ("", False, []),
    ],
)
def test_tasks_are_read_from_what_was_written(text, finished, found):
    assert [(task.text, task.fault) for task in read_tasks(text, finished=finished)] == found


def test_examples_come_before_the_task_and_labels_before_inputs():
    page = instance_page("Count.", [SUM], label_first=False)
    assert page.text + page.begun == "Task: Add the numbers.\nInput: 1, 2\nOutput: 3\n\nTask: Count.\nInput:"
    page = instance_page("Is it?", [MOOD], label_first=True)
    shown = "Task: Is it happy or sad?\nOutput: happy\nInput: none\n\nTask: Is it?\nOutput:"
    assert page.text + page.begun == shown
    page = kind_page("Is it?", [SUM, MOOD])
    kinds = "Task: Add the numbers.\nClassification: No\n\nTask: Is it happy or sad?\nClassification: Yes\n\n"
    assert page.text + page.begun == f"{kinds}Task: Is it?\nClassification:"


@pytest.mark.parametrize(
    ("text", "finished", "label_first", "found"),
    [
        ("Input: a\nOutput: b", True, False, Instance("a", "b")),
        ("Input: a\nOutput: b\nc\n\nTask: more", False, False, Instance("a", "b\nc")),
        ("Input: None.\nOutput: b", True, False, Instance("", "b")),
        ("Input:\nOutput: b", True, False, Instance("", "b")),
        ("Input: Output: b", True, False, "unreadable"),  # labels begin lines
        ("Input: the Output: b\nOutput: c", True, False, Instance("the Output: b", "c")),
        ("Output: b\nInput: a", True, True, Instance("a", "b")),
        ("Input: a\nOutput: b", False, False, "cut"),
        ("Input: a", False, False, "cut"),
        ("Input: a", True, False, "unreadable"),
        ("Input: a\n\nTask: more\nOutput: b", False, False, "unreadable"),
        ("Output: b\nInput: a", True, False, "unreadable"),
        # further instances were not asked for
        ("Input: a\nOutput: 1\n\nInput: b\nOutput: 2\n\nTask: n", True, False, Instance("a", "1")),
        ("Input: a\nOutput: 1\n\nInput: b", False, False, Instance("a", "1")),
        ("Output: yes\nInput: a\nOutput: no\nInput: b\n\nTask: n", True, True, Instance("a", "yes")),
        ("Input: a\nOutput: see Input: x\nTask: n", True, False, Instance("a", "see Input: x")),
        # which of two is meant cannot be told
        ("Input: a\nOutput: 1\nOutput: 2", True, False, "unreadable"),
        ("Input: a\nInput: b\nOutput: 2", True, False, "unreadable"),
        # a line may begin with the word
        (
            "Input: a\nOutput: Plan:\nTask one is to rest.\n\nTask 2: n",
            False,
            False,
            Instance("a", "Plan:\nTask one is to rest."),
        ),
        ("Input: a\nOutput: Plan:\nTasks are many.", True, False, Instance("a", "Plan:\nTasks are many.")),
        ("Input: a\nOutput: Plan:\nTask one is", False, False, "cut"),
    ],
)
def test_an_instance_is_read_or_it_is_said_why_not(text, finished, label_first, found):
    assert read_instance(text, finished=finished, label_first=label_first) == found


def seeds_of(path, rows, **keys):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return build_seed_tasks([SourceSpec(path=str(path), **keys)], TOKENIZER, seed=0)


def test_seeds_are_one_question_and_one_answer(tmp_path):
    rows = [
        {"instruction": "Add.", "input": "1, 2", "output": "three is it"},
        {"instruction": "Add.", "input": "2, 2", "output": "four"},
        {"instruction": "Is it\nred?", "input": "", "output": "yes"},
        {"instruction": "Go on.", "input": "", "output": "so", "history": [["a", "b"]]},
        {"instruction": "Say <|eos|>.", "input": "", "output": f"{TOKENIZER.eos_token} it"},
    ]
    built = seeds_of(tmp_path / "seeds.jsonl", rows, format="alpaca")
    assert {task.instruction: (task.classification, set(task.instances)) for task in built.tasks} == {
        "Add.": (False, {Instance("1, 2", "three is it"), Instance("2, 2", "four")}),
        "Is it red?": (True, {Instance("", "yes")}),
    }
    (source,) = built.report.train
    assert (source.rows_read, source.rows_used) == (5, 3)
    assert source.dropped == {"not_one_exchange": 1, "control_token_in_text": 1}


def test_rows_of_tasks_are_seeds_as_their_templates_write_them(tmp_path):
    path = write_task(tmp_path, rows=nli_rows(12))
    built = build_seed_tasks([SourceSpec(path=path, format="tasks")], TOKENIZER, seed=0)
    (source,) = built.report.train
    assert source.rows_used == 12 and "Tom has 2 cats. Claim: Tom has 2 cats. True?" in {
        task.instruction for task in built.tasks if task.instances == (Instance("", "yes"),)
    }


def test_seeds_that_are_all_dropped_are_an_error(tmp_path):
    row = {"instruction": "Go on.", "output": "so", "history": [["a", "b"]]}
    with pytest.raises(DataError, match="not_one_exchange"):
        seeds_of(tmp_path / "seeds.jsonl", [row], format="alpaca")


def test_seeds_say_themselves_what_is_instruction_input_and_classification(tmp_path):
    solved = {"input": "1, 2\n\n3", "output": "six in all"}
    rows = [
        {"instruction": "Add.\n\nAll of them.", "instances": [solved], "is_classification": True},
        {"instruction": "Say yes.\n\nThat is all.", "instances": [{"input": "", "output": "yes"}], "is_classification": False},
        {"instruction": "Is it red?", "instances": [{"input": "sky", "output": "no"}], "is_classification": None},
    ]  # fmt: skip
    built = seeds_of(tmp_path / "seeds.jsonl", rows, format="self_instruct")
    assert {task.instruction: (task.classification, task.instances) for task in built.tasks} == {
        "Add. All of them.": (True, (Instance("1, 2\n\n3", "six in all"),)),
        "Say yes. That is all.": (False, (Instance("", "yes"),)),
        "Is it red?": (True, (Instance("sky", "no"),)),  # it does not say so; the answer is short
    }
    with pytest.raises(DataError, match=r"seeds.jsonl:1: \"is_classification\" is a string"):
        seeds_of(tmp_path / "seeds.jsonl", [rows[0] | {"is_classification": "yes"}], format="self_instruct")
    chat = [{"role": "user", "content": "Add.\n\n1, 2"}, {"role": "assistant", "content": "three"}]
    (task,) = seeds_of(tmp_path / "seeds.jsonl", [{"messages": chat}], format="messages").tasks
    assert (task.instruction, task.instances) == ("Add.", (Instance("1, 2", "three"),))


def test_the_papers_own_seeds():
    """175 tasks, 26 of them classifications; their instructions and inputs are those of the file."""
    path = real("self-instruct/seed_tasks.jsonl")
    built = build_seed_tasks([SourceSpec(path=path, format="self_instruct")], TOKENIZER, seed=0)
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    called = {" ".join(row["instruction"].split()): row for row in rows}
    assert len(built.tasks) == 175 and sum(task.classification for task in built.tasks) == 26
    for task in built.tasks:
        row = called[task.instruction]
        assert task.classification == row["is_classification"]
        given = [(one["input"].strip(), one["output"].strip()) for one in row["instances"]]
        assert [(one.input, one.output) for one in task.instances] == given
    novelty = Novelty(task.instruction for task in built.tasks)
    assert all(novelty.rouge_l(task.instruction) == 1.0 for task in built.tasks)
