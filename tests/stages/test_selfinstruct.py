"""The stage on a tiny model that has learnt to write pages: rows, accounts, exact resume, both styles."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken

from aligner.check import check_recipe
from aligner.data.bootstrap.pages import instance_page, kind_page, tasks_page
from aligner.data.bootstrap.tasks import Instance, InstructionTask
from aligner.data.ids import one_bos
from aligner.data.readers import read_source
from aligner.errors import DataError, Interrupted, ModelError, RunError, TrainingError
from aligner.models.load import LoadedModel, save_model
from aligner.models.tokenizer import train_tokenizer
from aligner.pipeline import run_recipe
from aligner.planning import is_finished
from aligner.preflight import check_ahead
from aligner.preview import show_dropped_rows, show_recipe
from aligner.recipe.data import SourceSpec
from aligner.recipe.stages import SelfInstructRecipe
from aligner.run.report import build_report
from aligner.stages.selfinstruct import ROWS_FILE, self_instruct
from aligner.stages.writer import Asked, Writer, page_ids
from tests.data.real import real
from tests.data.test_prefixes import spaced
from tests.stages.tools import open_run, write_jsonl
from tests.tiny import tiny_model, tiny_tokenizer

NOUNS = ("cat", "dog", "bird", "fish", "horse", "cow", "fox", "bee", "ant", "owl", "frog", "goat")
VERBS = ("Name the color of", "Write one line about", "Invent a sweet name for", "Say what food suits")
STEPS, ROWS = 160, 8


def plain(verb: str, noun: str) -> InstructionTask:
    return InstructionTask(f"{verb} the {noun}.", False, (Instance(f"a {noun}", f"It is the {noun}."),))


def label(noun: str) -> InstructionTask:
    return InstructionTask(f"Tell if the {noun} is big or small.", True, (Instance(f"one {noun}", "big"),))


TASKS = [*(plain(verb, noun) for verb in VERBS for noun in NOUNS), *map(label, NOUNS)]
SEEDS = [*(plain(verb, noun) for verb in VERBS for noun in NOUNS[:2]), *map(label, NOUNS[:2])]


def pages(draw: random.Random) -> list[str]:
    """Pages as a book of tasks would have them: lists, kinds and instances."""
    shown = draw.sample(TASKS, 12)
    listed = tasks_page([task.instruction for task in shown]).text
    kinds = kind_page("The end.", shown[:4]).text
    plains = [task for task in shown if not task.classification][:4]
    labels = draw.sample(TASKS[-len(NOUNS) :], 4)
    return [
        listed,
        kinds,
        instance_page("The end.", plains, label_first=False).text,
        instance_page("The end.", labels, label_first=True).text,
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writer, seed tasks in their paper's form and in Alpaca's."""
    root, draw = tmp_path_factory.mktemp("selfinstruct"), random.Random(0)
    texts = [text for _ in range(STEPS * ROWS // 4) for text in pages(draw)]
    tokenizer = train_tokenizer(texts, vocab_size=500)
    model = tiny_model(tokenizer, hidden=64).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(STEPS):
        encoded = tokenizer(texts[step * ROWS : (step + 1) * ROWS], add_special_tokens=False)["input_ids"]
        longest = max(map(len, encoded)) + 1
        rows = [[tokenizer.bos_token_id, *ids] for ids in encoded]
        ids_BT = torch.tensor([ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids in rows])
        mask_BT = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in rows])
        labels_BT = ids_BT.masked_fill(mask_BT == 0, -100)
        model(input_ids=ids_BT, attention_mask=mask_BT, labels=labels_BT).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    save_model(LoadedModel(model.eval(), tokenizer, ""), root / "writer", base_folder=root / "unused")
    write_jsonl(root / "seeds.jsonl", [row for task in SEEDS for row in task.rows()])
    return root


def recipe(folder: Path, output: Path, **changes: object) -> SelfInstructRecipe:
    spec = {"instructions": 12, "rounds": 4, "prompts_per_round": 4, "instances": 2, "max_rouge_l": 0.95}
    return SelfInstructRecipe.model_validate(
        {
            "stage": "selfinstruct",
            "output": str(output),
            "model": {"base": str(folder / "writer")},
            "seed_tasks": [{"path": str(folder / "seeds.jsonl"), "format": "alpaca"}],
            "selfinstruct": spec | changes,
            "sampling": {"max_new_tokens": 64, "temperature": 1.0},
        }
    )


def run_it(plan: SelfInstructRecipe) -> dict[str, float]:
    with open_run(plan) as run:
        result = self_instruct(plan, run)
        run.finish(result.results)
    return result.results


def account_of(plan: SelfInstructRecipe) -> dict[str, int]:
    """What became of instructions in a run of one round, which may well find nothing."""
    with suppress(TrainingError):
        run_it(plan)
    state = json.loads((Path(plan.output) / "checkpoints/step-1/state.json").read_text())
    account = state["instructions"]
    assert account["read"] == len(state["tasks"]) + sum(account["dropped"].values())
    return account


def written(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "instructions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def straight(folder: Path) -> tuple[Path, dict[str, float]]:
    output = folder / "straight"
    return output, run_it(recipe(folder, output))


def test_new_tasks_are_rows_that_the_alpaca_reader_reads(straight):
    output, results = straight
    rows = written(output)
    assert rows and len(rows) == results["selfinstruct/rows"]
    assert all(set(row) == {"instruction", "input", "output"} for row in rows)
    source = read_source(SourceSpec(path=str(output / "instructions.jsonl"), format="alpaca"), "conversation")
    assert len(source.rows) == len(rows) and not source.dropped
    instructions = {row["instruction"] for row in rows}
    assert len(instructions) == results["selfinstruct/tasks"] >= 12
    assert not instructions & {task.instruction for task in SEEDS}


def test_everything_that_was_written_is_accounted_for(straight):
    _, results = straight
    for name, kept in (("instructions", "tasks"), ("instances", "rows")):
        dropped = sum(n for key, n in results.items() if key.startswith(f"selfinstruct/{name}_dropped["))
        assert results[f"selfinstruct/{name}_read"] == results[f"selfinstruct/{kept}"] + dropped
    assert results["selfinstruct/instructions_dropped[similar]"] > 0


def test_a_model_tells_classifications_and_answers_them_first(straight):
    """What it learnt: tasks with "big or small" are classifications, answered big, the others are none."""
    output, results = straight
    labels = {row["instruction"] for row in written(output) if "big or small" in row["instruction"]}
    assert 0 < results["selfinstruct/classifications"] < results["selfinstruct/tasks"]
    answers = [row["output"] for row in written(output) if row["instruction"] in labels]
    assert answers.count("big") >= 0.8 * len(answers) > 0


def test_an_interrupted_run_goes_on_to_the_very_same_rows(folder, straight, tmp_path):
    plan = recipe(folder, tmp_path / "run")
    with open_run(plan) as run, pytest.raises(Interrupted, match="tasks are in instructions.jsonl"):
        log = run.metrics.log

        def log_and_interrupt(step, values):
            log(step, values)
            os.kill(os.getpid(), signal.SIGINT)

        run.metrics.log = log_and_interrupt
        self_instruct(plan, run)
    output, results = straight
    kept = written(tmp_path / "run")
    assert kept and kept == written(output)[: len(kept)] and len(kept) < len(written(output))
    assert run_it(plan) == results
    assert (tmp_path / "run/instructions.jsonl").read_bytes() == (output / "instructions.jsonl").read_bytes()
    steps = [json.loads(line)["step"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))


def test_rounds_bound_a_run_and_the_seed_decides_it(folder, straight, tmp_path, capsys):
    plan = recipe(folder, tmp_path / "run", rounds=1, instructions=1000)
    results = run_it(plan)
    assert f"{results['selfinstruct/tasks']:.0f} of 1000 instructions" in capsys.readouterr().err
    rows = written(tmp_path / "run")
    assert rows == written(straight[0])[: len(rows)]  # the first round of the same seed
    run_it(plan.model_copy(update={"seed": 1, "output": str(tmp_path / "other")}))
    assert written(tmp_path / "other") != rows


def test_a_run_that_is_asked_for_more_goes_on_as_if_it_had_been_from_the_first(folder, straight, tmp_path):
    output = tmp_path / "run"
    few = recipe(folder, output, instructions=1, rounds=1)
    first = run_it(few)
    assert 1 <= first["selfinstruct/tasks"] < straight[1]["selfinstruct/tasks"]
    with pytest.raises(RunError, match="selfinstruct.instances: was 2, is 3"):
        open_run(recipe(folder, output, instructions=12, instances=3))
    assert is_finished(output, few) and not is_finished(output, recipe(folder, output))
    assert run_it(recipe(folder, output)) == straight[1]
    assert (output / ROWS_FILE).read_bytes() == (straight[0] / ROWS_FILE).read_bytes()
    assert json.loads((output / "manifest.json").read_text())["recipe"]["selfinstruct"]["instructions"] == 12
    with pytest.raises(RunError, match="selfinstruct.instructions: was 12, is 1"):
        open_run(few)


def test_a_run_without_any_new_task_is_an_error_that_says_why_and_keeps_its_rounds(folder, tmp_path):
    """No instruction has a hundred words."""
    plan = recipe(folder, tmp_path / "run", rounds=1, min_words=100)
    with pytest.raises(TrainingError, match="not one new task in 1 rounds") as error:
        run_it(plan)
    (problem,) = error.value.problems
    state = json.loads((tmp_path / "run/checkpoints/step-1/state.json").read_text())["instructions"]
    assert f"instructions: {state['read']} read, dropped most: " in problem.what
    assert (
        f"{state['dropped']['too_short']} too_short" in problem.what and "instances: 0 read" in problem.what
    )
    assert "selfinstruct.rounds" in problem.remedy and error.value.exit_code == 4
    with pytest.raises(TrainingError, match="not one new task in 2 rounds"):
        run_it(recipe(folder, tmp_path / "run", rounds=2, min_words=100))
    again = json.loads((tmp_path / "run/checkpoints/step-2/state.json").read_text())["instructions"]
    assert again["read"] > state["read"] and sum(again["dropped"].values()) == again["read"]


def test_a_chat_model_is_asked_in_one_turn(folder, tmp_path):
    """This one has never seen a chat: what it says is counted all the same."""
    account = account_of(recipe(folder, tmp_path / "run", style="chat", rounds=1))
    assert account["read"] >= 4


def test_the_papers_own_seeds_go_through_a_round(folder, tmp_path):
    """The writer has never seen such tasks: what it makes of them is counted, and no seed comes back as new."""
    source = {"path": real("self-instruct/seed_tasks.jsonl"), "format": "self_instruct"}
    plan = recipe(folder, tmp_path / "run", rounds=1, prompts_per_round=8)
    plan = SelfInstructRecipe.model_validate(plan.model_dump() | {"seed_tasks": [source]})
    assert account_of(plan)["read"] >= 8
    seeds = {row["instruction"] for row in map(json.loads, Path(source["path"]).read_text().splitlines())}
    assert not seeds & {row["instruction"] for row in written(tmp_path / "run")}
    (account,) = json.loads((tmp_path / "run/manifest.json").read_text())["data"]["train"]
    assert (account["rows_read"], account["rows_used"], account["dropped"]) == (175, 175, {})


def test_the_prompt_of_each_style(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "writer")
    page = tasks_page(["Add the numbers."])
    plain_ids = page_ids(page, tokenizer, "page")
    assert plain_ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(plain_ids[1:]).endswith("Task 1: Add the numbers.\nTask 2:")
    asked = [{"role": "user", "content": f"{page.text}\n{page.request}"}]
    shown = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(page_ids(page, tokenizer, "chat")) == shown


def test_a_control_token_ends_what_is_written(folder, tmp_path):
    from aligner.models.load import load_trained

    loaded = load_trained(folder / "writer")
    writer, asked = Writer(recipe(folder, tmp_path), loaded), Asked(tasks_page(["a"]), [1])
    ids = loaded.tokenizer(f" Sing.{loaded.tokenizer.bos_token}Task 9: Dance.", add_special_tokens=False)
    assert writer._written(asked, ids["input_ids"], False) == ("Task 2: Sing.", True)


@pytest.mark.parametrize(
    "text", [" Sing.", "\nTask 4: Tell a story.", " Sing.\n", "\n\n Sing.  \n Loud.\n\n"]
)
def test_what_is_read_is_what_was_written(folder, tmp_path, text):
    from aligner.models.load import load_trained

    loaded = load_trained(folder / "writer")
    writer, asked = Writer(recipe(folder, tmp_path), loaded), Asked(tasks_page(["a"]), [1])
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    end = loaded.tokenizer.eos_token_id
    assert writer._written(asked, [*ids, end], True) == (f"Task 2:{text}", True)
    chatting = Writer(recipe(folder, tmp_path, style="chat"), loaded)
    assert chatting._written(asked, ids, False) == (text, False)


@pytest.mark.parametrize(
    "tokenizer", [tiny_tokenizer(), spaced(AddedToken("<|ask|>"))], ids=["bytes", "spaced"]
)
def test_yes_is_spelt_as_it_is_behind_the_page(folder, tmp_path, tokenizer):
    """The oracle: what the whole text has more than the page; Llama 2 begins every text with a space of its own."""
    page = kind_page("Is it good?", SEEDS[:2])
    writer = Writer(recipe(folder, tmp_path), LoadedModel(tiny_model(), tokenizer, ""))
    for word in ("Yes", "No"):
        whole = tokenizer(f"{page.text}{page.begun} {word}", add_special_tokens=False)["input_ids"]
        assert [*page_ids(page, tokenizer, "page"), *writer._word_ids(word)] == one_bos(whole, tokenizer)


def test_examples_are_left_out_until_a_page_fits(folder, tmp_path):
    from aligner.models.load import load_trained

    writer = Writer(recipe(folder, tmp_path), load_trained(folder / "writer"))
    few = writer.ask(["word " * 60] * 20, tasks_page)
    assert few is not None and len(few.ids) <= 512 - 64
    assert 0 < few.page.text.count("\nTask") < 20
    assert writer.ask(["word " * 2000], tasks_page) is None


def test_an_instruction_that_no_solved_seed_fits_before_is_counted_so(folder, tmp_path):
    """Lists of short instructions fit; a seed solved at length fits no page."""
    long = [row | {"output": "long " * 500} for task in SEEDS for row in task.rows()]
    write_jsonl(tmp_path / "seeds.jsonl", long)
    source = {"path": str(tmp_path / "seeds.jsonl"), "format": "alpaca"}
    plan = recipe(folder, tmp_path / "run", rounds=1)
    account = account_of(SelfInstructRecipe.model_validate(plan.model_dump() | {"seed_tasks": [source]}))
    assert account["dropped"]["no_room"] > 0 and "no_instance" not in account["dropped"]


def test_seeds_that_fit_no_context_are_told(folder, tmp_path):
    plan = recipe(folder, tmp_path / "run")
    tight = plan.model_copy(update={"sampling": plan.sampling.model_copy(update={"max_new_tokens": 505})})
    with open_run(tight) as run, pytest.raises(ModelError, match="not one seed task fits"):
        self_instruct(tight, run)


def test_a_missing_library_is_told_before_anything_is_loaded(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    with pytest.raises(DataError, match=r"needs the package rapidfuzz[\s\S]*aligner\[data\]"):
        check_ahead([recipe(folder, tmp_path / "run")])


def test_the_commands_around_it(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "more.jsonl", [{"instruction": "Go on.", "output": "so", "history": [["a", "b"]]}])
    Path("r.yaml").write_text(
        f"stage: selfinstruct\noutput: run\nmodel: {{base: {folder / 'writer'}}}\n"
        f"seed_tasks: [{{path: {folder / 'seeds.jsonl'}, format: alpaca}}, {{path: more.jsonl, format: alpaca}}]\n"
        "selfinstruct: {instructions: 3, rounds: 1, prompts_per_round: 2, max_rouge_l: 0.95}\n"
        "sampling: {max_new_tokens: 48}\n"
    )
    (stage,) = check_recipe(Path("r.yaml")).stages
    told = {row.name: row.value for row in stage.rows}
    assert told["seed tasks"] == str(len(SEEDS)) and "time" in told
    assert stage.tables[0].rows[1][1:] == ("1", "0", "not_one_exchange 1")
    show_recipe(Path("r.yaml"), count=2)
    shown = capsys.readouterr().out
    assert shown.count("Here is a list of different tasks.") == 2 and "Task 9:" in shown
    show_dropped_rows(Path("r.yaml"))
    assert "not_one_exchange: 1" in capsys.readouterr().out
    outcome = run_recipe(Path("r.yaml"), stage="selfinstruct")
    assert outcome.status == "done" and outcome.results["selfinstruct/rows"] == len(written(Path("run")))
    assert run_recipe(Path("r.yaml")).status == "already_done"
    assert "instructions_dropped" in build_report(Path("run")).read_text()
    rows = written(Path("run"))
    assert run_recipe(Path("r.yaml"), fresh=True).status == "done" and written(Path("run")) == rows
