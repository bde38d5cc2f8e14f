"""Publishing with the real Hub client against a Hub on this machine; and what a prepared folder holds and does not hold."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForSequenceClassification,
)

from aligner.errors import RunError
from aligner.hub.card import CardFacts, loading_code
from aligner.hub.example import ANY, Example, example_of
from aligner.hub.upload import check_no_private_paths, prepare_folder, publish
from aligner.models.adapters import attach_lora
from aligner.models.heads import RewardModel, RewardStats, write_stats
from aligner.models.scoring import Scoring
from aligner.recipe.model import LoraSpec
from aligner.run.manifest import Manifest
from tests.hub.hub_server import HubState, local_hub
from tests.tiny import tiny_model, tiny_tokenizer

TOKEN = "hf_thisIsASecretOfTheTests"
COMMIT = "0123456789abcdef" * 2 + "01234567"
TOKENIZER = tiny_tokenizer()
IDS = torch.tensor([[1, 20, 30, 40]])
FULL_FILES = ["README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
              "tokenizer.json", "tokenizer_config.json"]  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubState]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with local_hub(TOKEN) as state:
        yield state


def write_manifest(run: Path, *, stage: str = "sft", status: str = "finished", base: str = "") -> None:
    source = {
        "path": str(run / "data" / "tasks.jsonl"),
        "format": "messages",
        "rows_used": 12,
        "sha256": "ab" * 32,
    }
    Manifest(
        stage=stage, recipe={"output": str(run)}, status=status, parents={"base": base} if base else {},  # type: ignore[arg-type]
        data={"train": [source], "holdout": []}, versions={"aligner": "0.1.0"}, results={f"{stage}/loss_nats": 1.25},
    ).write(run)  # fmt: skip


@pytest.fixture
def full_run(tmp_path: Path) -> Path:
    """A finished run whose model folder also holds things that are nobody's business."""
    run = tmp_path / "private-name" / "run"
    tiny_model(TOKENIZER).save_pretrained(run / "model")
    TOKENIZER.save_pretrained(run / "model")
    (run / "model" / "notes.txt").write_text("secret")
    (run / "model" / "optimizer.pt").write_bytes(b"state")
    (run / "model" / "README.md").write_text(f"base_model: {run}")
    (run / "model" / "checkpoint-1").mkdir()
    config = json.loads((run / "model" / "config.json").read_text())
    (run / "model" / "config.json").write_text(json.dumps(config | {"_name_or_path": str(run)}))
    write_manifest(run, base=f"{run}/base#0123456789ab")
    return run


def adapter_run(tmp_path: Path, *, base: str) -> tuple[Path, PeftModel]:
    """A finished LoRA run on a base that lies at `base` (a folder gets its files)."""
    run, folder = tmp_path / "private-name" / "run", tmp_path / "private-name" / "base"
    model = tiny_model(TOKENIZER, seed=3)
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapted = attach_lora(model, LoraSpec(rank=4), "CAUSAL_LM").eval()
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.5)
    adapted.peft_config["default"].base_model_name_or_path = base or str(folder)
    adapted.save_pretrained(run / "model", save_embedding_layers=False)
    TOKENIZER.save_pretrained(run / "model")
    write_manifest(run, base=f"{base}@{COMMIT}" if base else f"{folder}#0123456789ab")
    return run, adapted


def every_byte(folder: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_the_real_client_uploads_exactly_the_prepared_files(hub: HubState, full_run: Path, tmp_path: Path):
    published = publish(full_run, "you/tiny", endpoint=hub.url, token=TOKEN)
    prepare_folder(full_run, tmp_path / "same", repo_id="you/tiny")
    expected = {path.name: path.read_bytes() for path in (tmp_path / "same").iterdir()}
    assert sorted(expected) == FULL_FILES == published.files
    weights = hub.lfs_files["model.safetensors"]
    assert weights["oid"] == hashlib.sha256(expected["model.safetensors"]).hexdigest()
    assert hub.blobs[weights["oid"]] == expected["model.safetensors"]
    assert hub.files == {name: content for name, content in expected.items() if name != "model.safetensors"}
    assert hub.created[0] | {"name": "tiny", "organization": "you"} == hub.created[0]
    assert published.url == f"{hub.url}/you/tiny"
    assert not (full_run / "publish").exists()


@pytest.mark.parametrize(("private", "visibility"), [(None, "private"), (True, "private"), (False, "public")])
def test_a_repository_is_private_unless_asked_otherwise(
    hub: HubState, full_run: Path, private: bool | None, visibility: str
):
    chosen = {} if private is None else {"private": private}
    publish(full_run, "you/tiny", endpoint=hub.url, token=TOKEN, **chosen)
    assert hub.created[0]["visibility"] == visibility


def test_the_token_is_in_no_file_and_never_sent_to_the_storage(hub: HubState, full_run: Path):
    publish(full_run, "you/tiny", endpoint=hub.url, token=TOKEN)
    sent = b"".join([*hub.files.values(), *hub.blobs.values(), *(card.encode() for card in hub.cards)])
    assert TOKEN.encode() not in sent + every_byte(full_run)
    assert hub.tokens_sent_to_storage == []


def test_publishing_to_a_repository_that_exists_goes_on(hub: HubState, full_run: Path):
    hub.exists = True
    assert publish(full_run, "you/tiny", endpoint=hub.url, token=TOKEN).files == FULL_FILES
    assert "model.safetensors" in hub.lfs_files


def test_a_refused_token_is_told_with_the_remedy(hub: HubState, full_run: Path):
    with pytest.raises(RunError, match="hf auth login") as caught:
        publish(full_run, "you/tiny", endpoint=hub.url, token="hf_wrong")
    assert "hf_wrong" not in str(caught.value)
    assert not (full_run / "publish").exists()


def test_a_hub_that_is_not_there_is_told(hub: HubState, full_run: Path):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(RunError, match="cannot be reached"):
            publish(full_run, "you/tiny", endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}", token=TOKEN)


def test_an_impossible_repository_name_is_told(hub: HubState, full_run: Path):
    with pytest.raises(RunError, match="write it as you/name"):
        publish(full_run, "you/what/ever", endpoint=hub.url, token=TOKEN)


def test_a_dry_run_to_an_impossible_name_is_refused(full_run: Path, tmp_path: Path):
    with pytest.raises(RunError, match="write it as you/name"):
        publish(full_run, "bad repo!!", dry_run_folder=tmp_path / "dry")
    assert not (tmp_path / "dry").exists()


def test_a_dry_run_writes_the_folder_and_asks_nobody(full_run: Path, tmp_path: Path):
    target = tmp_path / "dry"
    for _ in range(2):  # again over itself
        assert publish(full_run, "you/tiny", dry_run_folder=target).url is None
    assert sorted(path.name for path in target.iterdir()) == FULL_FILES


def test_no_byte_of_the_folder_tells_where_the_run_or_the_home_was(full_run: Path, tmp_path: Path):
    prepare_folder(full_run, tmp_path / "out", repo_id="you/tiny")
    content = every_byte(tmp_path / "out")
    for private in (str(full_run), "private-name", f"{Path.home()}/", "secret"):
        assert private.encode() not in content
    assert b"tasks.jsonl" in content


def test_a_path_that_is_left_stops_the_publishing(full_run: Path, tmp_path: Path):
    template = full_run / "model" / "chat_template.jinja"
    template.write_text(template.read_text() + f"{{# from {full_run} #}}")
    with pytest.raises(RunError, match="chat_template.jinja holds a path of this machine"):
        prepare_folder(full_run, tmp_path / "out", repo_id="you/tiny")
    assert not (tmp_path / "out").exists()
    (tmp_path / "clean").mkdir()
    check_no_private_paths(tmp_path / "clean", full_run)


def test_a_full_model_loads_and_gives_the_same_numbers(full_run: Path, tmp_path: Path):
    prepare_folder(full_run, tmp_path / "out", repo_id="you/tiny")
    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(IDS).logits
        torch.testing.assert_close(loaded, tiny_model(TOKENIZER)(IDS).logits)


def test_an_adapter_on_a_local_base_is_merged(tmp_path: Path):
    run, adapted = adapter_run(tmp_path, base="")
    files, merged = prepare_folder(run, tmp_path / "out", repo_id="you/tiny")
    assert merged and files == FULL_FILES
    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(IDS).logits
        torch.testing.assert_close(loaded, adapted(IDS).logits, rtol=1e-4, atol=1e-4)
        assert (loaded - tiny_model(TOKENIZER, seed=3)(IDS).logits).abs().max() > 0.01
    card = (tmp_path / "out" / "README.md").read_text()
    assert "it is merged into these weights" in card and "base_model" not in card
    assert b"private-name" not in every_byte(tmp_path / "out")


def test_an_adapter_on_a_hub_base_stays_an_adapter(tmp_path: Path):
    run, _ = adapter_run(tmp_path, base="some/base")
    files, merged = prepare_folder(run, tmp_path / "out", repo_id="you/tiny")
    assert not merged
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(files)
    assert "model.safetensors" not in files
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("some/base", COMMIT)
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'base_model: "some/base"' in card and 'library_name: "peft"' in card


def test_an_adapter_of_an_adapter_names_the_commit_that_the_first_was_trained_on(tmp_path: Path):
    run, _ = adapter_run(tmp_path, base="some/base")
    (tmp_path / "private-name" / "sft" / "model").mkdir(parents=True)
    write_manifest(tmp_path / "private-name" / "sft", base=f"some/base@{COMMIT}")
    write_manifest(run, stage="ppo", base=f"{tmp_path}/private-name/sft/model#0123456789ab")
    prepare_folder(run, tmp_path / "out", repo_id="you/tiny")
    assert f"at revision `{COMMIT}`" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("base", ["some/base@main", "other/base@" + COMMIT, "/gone/model#0123456789ab"])
def test_an_adapter_is_not_published_without_its_bases_commit(tmp_path: Path, base: str):
    run, _ = adapter_run(tmp_path, base="some/base")
    write_manifest(run, base=base)
    with pytest.raises(RunError, match="on which commit of some/base.*\n.*adapter_config.json"):
        prepare_folder(run, tmp_path / "out", repo_id="you/tiny")
    settings = run / "model" / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"revision": COMMIT}))
    prepare_folder(run, tmp_path / "out", repo_id="you/tiny")  # the remedy


def sharded(run: Path) -> list[str]:
    """The run's weights in several files; their names."""
    (run / "model" / "model.safetensors").unlink()
    tiny_model(TOKENIZER).save_pretrained(run / "model", max_shard_size="20KB")
    return sorted(path.name for path in (run / "model").glob("model-*.safetensors"))


def test_a_file_that_the_storage_refuses_is_told(hub: HubState, full_run: Path):
    hub.refuses = True
    with pytest.raises(RunError, match="(?s)refused the upload .*hf auth login"):
        publish(full_run, "you/tiny", endpoint=hub.url, token=TOKEN)
    hub.refuses = False
    publish(full_run, "you/tiny", endpoint=hub.url, token=TOKEN)
    assert "model.safetensors" in hub.lfs_files


def test_an_unfinished_run_is_refused(full_run: Path, tmp_path: Path):
    write_manifest(full_run, status="interrupted")
    with pytest.raises(RunError, match="interrupted.*\n.*finish the run first"):
        prepare_folder(full_run, tmp_path / "out", repo_id="you/tiny")


def test_a_folder_with_other_files_is_left_alone(full_run: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"thesis\.tex"):
        prepare_folder(full_run, tmp_path / "out", repo_id="you/tiny")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"


def test_the_cards_code_runs_on_the_folder(
    full_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    prepare_folder(full_run, tmp_path / "out", repo_id="you/tiny")
    card = (tmp_path / "out" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    exec(code.replace('"you/tiny"', repr(str(tmp_path / "out"))), {})
    assert capsys.readouterr().out.endswith("\n")


def test_the_cards_question_is_the_runs_own(full_run: Path, tmp_path: Path) -> None:
    """The best rewarded of the newest samples; without samples the first short row of the data; else anybody's."""
    rows = [
        {"step": 0, "prompt": "An old one?", "response": "Yes", "gold_reward": 1.0},
        {"step": 9, "prompt": 'Who said "no"?', "response": "Sam", "gold_reward": 0.5},
        {"step": 9, "prompt": "A worse one?", "response": "Sam", "gold_reward": -1.0},
    ]
    samples, data = full_run / "samples.jsonl", tmp_path / "rows.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare_folder(full_run, tmp_path / "out", repo_id="you/tiny")
    assert '"content": "Who said \\"no\\"?"' in (tmp_path / "out" / "README.md").read_text()
    samples.unlink()
    asked = [{"prompt": question, "completion": "Rye."} for question in ("Which bread " * 20, "Which bread?")]
    data.write_text("".join(json.dumps(row) + "\n" for row in asked))
    train = f"data: {{train: [{{path: {data}}}]}}\ntrain: {{steps: 1}}\n"
    (full_run / "recipe.yaml").write_text(f"stage: sft\noutput: x\nmodel: {{base: you/base}}\n{train}")
    assert example_of(full_run) == Example("Which bread?", "Rye.")
    data.unlink()
    assert example_of(full_run) == ANY


def test_a_reward_models_code_gives_its_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = tiny_model(TOKENIZER).config
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]):
        LlamaForSequenceClassification(config).save_pretrained(tmp_path / "run" / "model")
    TOKENIZER.save_pretrained(tmp_path / "run" / "model")
    (tmp_path / "run" / "model" / "reward_stats.json").write_text('{"mean": 0.0, "std": 1.0}')
    write_manifest(tmp_path / "run", stage="reward")
    files, _ = prepare_folder(tmp_path / "run", tmp_path / "out", repo_id="you/judge")
    assert "reward_stats.json" in files
    exec(loading_code(CardFacts(str(tmp_path / "out"), "reward", None, None, merged=False)), {})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [
        {"role": "user", "content": ANY.question},
        {"role": "assistant", "content": ANY.answer},
    ]
    ids = tokenizer(
        tokenizer.apply_chat_template(messages, tokenize=False), add_special_tokens=False, return_tensors="pt"
    )
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert float(capsys.readouterr().out) == pytest.approx(model(ids["input_ids"]).logits.item(), abs=1e-5)


LIKELIHOOD = RewardStats(-3.0, 1.5, 8, Scoring("likelihood", 0.5))


def judged_alike(published: Path, run: Path) -> None:
    """The published folder is the run's reward model, for this package too."""
    rows, lengths = [[1, 20, 30, 40], [1, 7, 8]], [2, 1]
    ours, theirs = (RewardModel.from_folder(folder) for folder in (run, published))
    assert theirs.stats == ours.stats == LIKELIHOOD
    torch.testing.assert_close(theirs.score(rows, lengths), ours.score(rows, lengths), rtol=1e-4, atol=1e-4)


def test_a_likelihood_reward_model_is_published_as_the_language_model_it_is(
    full_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_stats(full_run / "model", LIKELIHOOD)
    write_manifest(full_run, stage="reward")
    published = publish(full_run, "you/judge", dry_run_folder=tmp_path / "out")
    assert published.files == sorted([*FULL_FILES, "reward_stats.json"])
    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(IDS).logits
        torch.testing.assert_close(loaded, tiny_model(TOKENIZER)(IDS).logits)
    judged_alike(tmp_path / "out", full_run)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "AutoModelForCausalLM" in card and "SequenceClassification" not in card
    exec(card.split("```python\n")[1].split("```")[0].replace('"you/judge"', repr(str(tmp_path / "out"))), {})
    assert capsys.readouterr().out.endswith("\n")


def test_a_likelihood_adapter_on_a_local_base_is_merged(tmp_path: Path):
    run, adapted = adapter_run(tmp_path, base="")
    write_stats(run / "model", LIKELIHOOD)
    write_manifest(run, stage="reward")
    files, merged = prepare_folder(run, tmp_path / "out", repo_id="you/judge")
    assert merged and files == sorted([*FULL_FILES, "reward_stats.json"])
    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(IDS).logits
        torch.testing.assert_close(loaded, adapted(IDS).logits, rtol=1e-4, atol=1e-4)
    judged_alike(tmp_path / "out", run)


def test_a_likelihood_adapter_on_a_hub_base_stays_a_language_models_adapter(tmp_path: Path):
    run, _ = adapter_run(tmp_path, base="some/base")
    write_stats(run / "model", LIKELIHOOD)
    write_manifest(run, stage="reward", base=f"some/base@{COMMIT}")
    files, merged = prepare_folder(run, tmp_path / "out", repo_id="you/judge")
    assert not merged and {"adapter_config.json", "reward_stats.json"} <= set(files)
    assert "AutoPeftModelForCausalLM" in (tmp_path / "out" / "README.md").read_text()
