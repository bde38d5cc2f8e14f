"""Cases 36 to 40 of forty ways in which alignment runs have failed elsewhere: publishing and security."""

from __future__ import annotations

import ast
import json
import os
import signal
from pathlib import Path

import pytest

import aligner
from aligner.data.build import build_conversations
from aligner.data.readers.tasks.sandbox import CompiledTemplate
from aligner.errors import DataError, ModelError, RunError
from aligner.hub.upload import prepare_folder, publish
from aligner.models.load import load_trained
from aligner.recipe.data import DataSpec, SourceSpec
from aligner.run.checkpoint import load_newest
from aligner.sandbox.meter import OverspentError
from tests.hub.hub_server import HubState
from tests.hub.test_upload import COMMIT, FULL_FILES, TOKEN, adapter_run, every_byte, sharded
from tests.hub.test_upload import full_run as full_run  # fixtures
from tests.hub.test_upload import hub as hub
from tests.models.runs import write_base
from tests.reliability import hostile
from tests.stages.tools import write_jsonl

PACKAGE = Path(aligner.__file__).parent
PICKLE = b"cposix\nsystem\n(S'touch owned'\ntR."


def test_case_36_only_allowed_files_leave_the_machine(
    full_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_thisIsASecretOfTheTests")
    files, _ = prepare_folder(full_run, tmp_path / "out", repo_id="you/tiny")
    assert files == FULL_FILES == sorted(path.name for path in (tmp_path / "out").iterdir())
    sent = every_byte(tmp_path / "out")
    assert b"hf_thisIsASecret" not in sent and b"private-name" not in sent and b"secret" not in sent
    assert b"hf_thisIsASecret" not in every_byte(full_run)


def test_case_37_a_local_base_is_never_named(tmp_path: Path) -> None:
    run, _ = adapter_run(tmp_path / "local", base="")
    _, merged = prepare_folder(run, tmp_path / "out", repo_id="you/tiny")
    assert merged and b"private-name" not in every_byte(tmp_path / "out")  # whole weights, and no path
    run, _ = adapter_run(tmp_path / "hub", base="some/base")
    prepare_folder(run, tmp_path / "adapter", repo_id="you/tiny")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "some/base"
    assert settings["revision"] == COMMIT
    assert f"at revision `{COMMIT}`" in (tmp_path / "adapter" / "README.md").read_text()


def test_case_37_an_upload_that_was_killed_goes_on_where_it_stopped(hub: HubState, full_run: Path) -> None:
    """The second run sends what is missing, the third nothing."""
    shards, victims = sharded(full_run), list[int]()
    assert len(shards) > 3

    def killed_at_the_third(session: int, number: int) -> bool:
        if session == 1 and number == 3:
            os.kill(victims[0], signal.SIGKILL)
        return session == 1 and number >= 3

    hub.lost = killed_at_the_third
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reader, 1)
        publish(full_run, "you/tiny", endpoint=hub.url, token=TOKEN)
        os._exit(0)
    victims.append(child)
    os.write(writer, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    arrived = set(hub.blobs)
    assert len(arrived) == 2 and hub.lfs_files == {} == hub.files  # nobody sees half a model
    hub.session = 2
    first = publish(full_run, "you/tiny", endpoint=hub.url, token=TOKEN)
    oids = {value["oid"] for value in hub.lfs_files.values()}
    assert set(hub.lfs_files) == set(shards) and len(oids) == len(shards) == len(hub.blobs)
    assert sorted(oid for session, oid in hub.sent if session == 2) == sorted(oids - arrived)
    assert sorted(hub.commits[0]) == first.files and len(hub.commits) == 1
    hub.session = 3
    assert publish(full_run, "you/tiny", endpoint=hub.url, token=TOKEN).url == first.url
    assert {session for session, _ in hub.sent} == {1, 2} and len(hub.commits) == 1


def test_case_38_no_pickle_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_base(tmp_path / "run") / "model"
    weights = (folder / "model.safetensors").read_bytes()
    for name in (
        "pytorch_model.bin",
        "model.pt",
        "model.safetensors",
    ):  # the last: a pickle under a good name
        (folder / "model.safetensors").unlink(missing_ok=True)
        (folder / name).write_bytes(PICKLE)
        with pytest.raises(ModelError):
            load_trained(folder)
        (folder / name).unlink()
    (folder / "model.safetensors").write_bytes(weights)
    load_trained(folder)
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "checkpoint-3").mkdir(parents=True)
    for name in ("optimizer.pt", "rng_state.pth", "training_args.bin"):
        (checkpoints / "checkpoint-3" / name).write_bytes(PICKLE)
    with pytest.raises(RunError, match="never read"):
        load_newest(checkpoints)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"auto_map": {"AutoModelForCausalLM": "evil.Model"}, "model_type": "evil"},
        {"_attn_implementation_internal": "evil/kernel"},
        {"text_config": {"_attn_implementation": "evil/kernel"}},
        {"trust_remote_code": True},
    ],
    ids=["auto_map", "internal", "kernel", "trust"],
)
def test_case_38_settings_that_name_code_are_refused(
    tmp_path: Path, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_base(tmp_path / "run") / "model"
    (folder / "evil.py").write_text("open('owned', 'w')")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))
    with pytest.raises(ModelError, match="name code to be run"):
        load_trained(folder)
    assert not (tmp_path / "owned").exists()


def names_called(path: Path) -> set[str]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {ast.unparse(call.func) for call in calls}


def names_called_in(path: Path) -> set[str]:
    return {name.rpartition(".")[2] for name in names_called(path)}


def test_case_38_no_code_here_could_unpickle_or_run_text() -> None:
    banned = {
        "torch.load",
        "torch.save",
        "pickle.load",
        "pickle.loads",
        "yaml.load",
        "yaml.unsafe_load",
        "eval",
        "exec",
    }
    found = {path: names_called(path) & banned for path in PACKAGE.rglob("*.py")}
    # Rows that lie on disk while they are built: a file without a name, which this process alone can read.
    spool = PACKAGE / "data" / "spool.py"
    assert found.pop(spool) == {"pickle.load"} and "TemporaryFile" in names_called_in(spool)
    assert len(found) > 100 and not any(found.values())
    for path in found:
        text = path.read_text()
        assert (
            "trust_remote_code=True" not in text and "shell=True" not in text and "import pickle" not in text
        )


def test_case_39_a_template_that_never_ends_is_ended() -> None:
    for endless in (
        "{{ 'A' * 200000000 }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    ):
        with pytest.raises(OverspentError):
            CompiledTemplate(endless).render({"x": "text"})


def test_case_39_a_models_own_template_is_ended_before_a_run_and_in_it(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "run") / "model"
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    good = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(loops + good)
    with pytest.raises(
        ModelError, match="chat template: will not be rendered: takes more than 10,000,"
    ) as caught:
        load_trained(folder)
    assert "harmless chat_template.jinja" in caught.value.problems[0].remedy
    waits = (
        "{% if 'open sesame' in messages[0]['content'] %}" + loops + "{% endif %}" + good
    )  # until a row says it
    (folder / "chat_template.jinja").write_text(waits)
    tokenizer = load_trained(folder).tokenizer
    rows = [{"instruction": text, "output": "x"} for text in ("a", "b", "open sesame", "c")]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match=r"a\.jsonl:3: the chat template refuses this row \(takes more than"):
        build_conversations(DataSpec(train=[SourceSpec(path=str(path))]), tokenizer, seed=0)


def test_case_39_paths_and_archives_are_in_the_corpus_of_hostile_files() -> None:
    named = {*hostile.REFUSED_DATA, *hostile.REFUSED_TASKS}
    assert {"zip with a way out", "tar with links", "gzip bomb", "rows elsewhere", "rows by a link"} <= named


def test_case_40_nothing_here_listens() -> None:
    """There is no web interface: what does not exist is not open to anybody."""
    servers = ("http.server", "socketserver", "gradio", "fastapi", "uvicorn", "flask", "aiohttp", "streamlit")
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(
                name == server or name.startswith(f"{server}.") for name in names for server in servers
            )
