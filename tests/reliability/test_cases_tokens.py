"""Cases 13 to 18 of forty ways in which alignment runs have failed elsewhere: tokenizers and templates."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig

from aligner.data.build import build_conversations
from aligner.data.rows import Pair
from aligner.data.templates import control_tokens, render_texts
from aligner.data.tokens import render_prompt, tokenize_conversation, tokenize_pairs
from aligner.errors import DataError, ModelError
from aligner.models.load import LoadedModel, load_model, load_trained, save_model
from aligner.models.tokenizer import CHAT_TEMPLATE, PLAIN_TEMPLATE, ensure_end
from aligner.pipeline import run_stage
from aligner.preflight import altered_since_training, check_ahead
from aligner.recipe.data import DataSpec, SourceSpec
from aligner.recipe.evaluate import EvaluateRecipe, SuitesSpec
from aligner.recipe.model import LoraSpec, ModelSpec
from aligner.run.folder import RunFolder
from aligner.stages.batches import AnswerCollator, labelled
from tests.data.chats import ORIGIN, TEMPLATES, chat
from tests.data.families import FAMILIES, tokenizer_of
from tests.models.runs import logits
from tests.models.test_adapters import stirred
from tests.run.fake import sft_recipe
from tests.stages.tools import save_tiny, write_jsonl
from tests.tiny import tiny_model, tiny_tokenizer

OWN_AND_OTHERS = ["own", *TEMPLATES]


def tokenizer_with(template: str):
    tokenizer = tiny_tokenizer()
    if template != "own":
        tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


@pytest.mark.parametrize("template", OWN_AND_OTHERS)
def test_case_13_pad_that_is_eos_hides_no_eos(template: str) -> None:
    tokenizer = tokenizer_with(template)
    tokenizer.pad_token = tokenizer.eos_token
    rows = [
        tokenize_conversation(chat(*talk), tokenizer, 200) for talk in (("a", "b"), ("a", "b b b", "c", "d"))
    ]
    batch = AnswerCollator(tokenizer.pad_token_id)([labelled(row) for row in rows])
    ends = (batch["targets"] == tokenizer.eos_token_id).sum(dim=1)
    assert ends.tolist() == [1, 2]  # one for each answer, none for padding


def test_case_14_what_ends_an_answer_is_where_sampling_stops(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE.replace("eos_token", "'<|system|>'")  # another end than <|eos|>
    loaded = load_trained(save_tiny(tmp_path / "base", tokenizer))
    row = tokenize_conversation(chat("a", "b"), loaded.tokenizer, 64)
    last = [token for token, learnt in zip(row.input_ids, row.supervised, strict=True) if learnt][-1]
    save_model(loaded, tmp_path / "again", base_folder=tmp_path / "unused")
    stops = GenerationConfig.from_pretrained(tmp_path / "again").eos_token_id
    assert last in (stops if isinstance(stops, list) else [stops]) and last == loaded.tokenizer.eos_token_id


@pytest.mark.parametrize("template", OWN_AND_OTHERS)
def test_case_15_exactly_one_beginning(template: str) -> None:
    tokenizer = tokenizer_with(template)
    bos = tokenizer.bos_token_id
    (pair,) = tokenize_pairs([Pair(ORIGIN, chat("Hi"), "good", "bad")], tokenizer, 64)
    trained = tokenize_conversation(chat("Hi", "Ho"), tokenizer, 64).input_ids
    for ids in (trained, pair.chosen_ids, pair.rejected_ids, render_prompt(chat("Hi"), tokenizer)):
        assert ids.count(bos) == 1 and ids[0] == bos


def test_case_16_the_template_travels_with_the_model(tmp_path: Path) -> None:
    tokenizer = tokenizer_with("chatml")
    ensure_end(tokenizer)
    save_model(LoadedModel(tiny_model(tokenizer), tokenizer, ""), tmp_path / "model", base_folder=tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert again.chat_template == tokenizer.chat_template
    assert render_prompt(chat("Hi"), again) == render_prompt(chat("Hi"), tokenizer)
    bare = tiny_tokenizer()
    bare.chat_template = None
    loaded = load_trained(save_tiny(tmp_path / "bare", bare))  # a base without one gets one, and keeps it
    assert loaded.tokenizer.chat_template and "User: Hi" in loaded.tokenizer.decode(
        render_prompt(chat("Hi"), loaded.tokenizer)
    )


RENDERS = json.loads(
    (Path(__file__).parent / "renders.json").read_text()
)  # written by hand, from descriptions


@pytest.mark.parametrize("family", RENDERS)
def test_case_16_a_conversation_reads_as_its_golden_render(family: str) -> None:
    """[a whole conversation, the same up to where its last answer begins], system turn first where there are any."""
    tokenizer = tokenizer_of(FAMILIES[family]) if family in FAMILIES else tiny_tokenizer()
    if family == "words":
        tokenizer.chat_template = PLAIN_TEMPLATE
    system = "Be short." if family not in FAMILIES or FAMILIES[family].system else ""
    talk = chat("Add 1 and 1.", "2", "And 2 more?", "4", system=system)
    whole = render_texts([talk, talk], tokenizer, ask=False, origins=[None, None])
    asked = render_texts([talk[:-1]], tokenizer, ask=True, origins=[None])
    assert [whole[0], whole[1], *asked] == [RENDERS[family][0], *RENDERS[family]]


def finished_run(folder: Path) -> Path:
    with RunFolder.open(sft_recipe(folder), recipe_text="") as run:
        tokenizer = tiny_tokenizer()
        save_model(LoadedModel(tiny_model(tokenizer), tokenizer, ""), run.model_dir, base_folder=run.base_dir)
        run.finish({})
    return folder


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.json", "generation_config.json"])
def test_case_16_another_template_than_the_one_of_training_is_refused(tmp_path: Path, name: str) -> None:
    run = finished_run(tmp_path / "sft")
    prompts = [SourceSpec(path=str(write_jsonl(tmp_path / "p.jsonl", [{"prompt": "Hi"}])))]
    asked = EvaluateRecipe(
        stage="evaluate",
        output=str(tmp_path / "e"),
        models={"sft": str(run)},
        suites=SuitesSpec(prompts=prompts),
    )
    check_ahead([asked])
    file = run / "model" / name
    before = file.read_bytes()
    for change in (lambda: file.write_bytes(before + b" "), file.unlink):
        change()
        with pytest.raises(
            DataError, match=rf"{name}: is not what the model was trained with \(sha256 was [0-9a-f]"
        ):
            check_ahead([asked])
        with pytest.raises(
            ModelError, match=name
        ):  # as the stage itself begins, which a pipeline may have made
            run_stage(asked)
    tuned = sft_recipe(tmp_path / "next").model_copy(update={"model": ModelSpec(base=str(run))})
    assert not list(altered_since_training(tuned))  # SFT may teach another template
    shutil.copytree(run / "model", tmp_path / "aside")
    check_ahead([asked.model_copy(update={"models": {"sft": str(tmp_path / "aside")}})])
    file.write_bytes(before)
    check_ahead([asked])


def test_case_17_no_row_forges_a_turn(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    controls = control_tokens(tokenizer)
    rows = [{"instruction": f"Hi{token}", "output": "x"} for token in controls]
    rows += [{"instruction": "Hi", "output": f"x{token}"} for token in controls]
    path = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Hi", "output": "Ho"}, *rows])
    built = build_conversations(DataSpec(train=[SourceSpec(path=str(path))]), tokenizer, seed=0)
    assert len(controls) >= 4 and built.report.train[0].dropped == {"control_token_in_text": len(rows)}
    assert len(built.train) == 1


def test_case_18_added_tokens_are_resized_and_reload_the_same(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    tokenizer.add_tokens(["<new>"])  # more tokens than the embeddings have rows
    save_model(LoadedModel(model, tokenizer, ""), tmp_path / "base", base_folder=tmp_path)
    loaded = load_model(ModelSpec(base=str(tmp_path / "base"), lora=LoraSpec(rank=2, alpha=4)))
    assert loaded.model.get_input_embeddings().num_embeddings >= len(loaded.tokenizer)
    stirred(loaded.model)
    save_model(loaded, tmp_path / "run" / "model", base_folder=tmp_path / "run" / "base")
    assert torch.equal(logits(load_trained(tmp_path / "run")), logits(loaded))
