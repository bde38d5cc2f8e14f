"""An access token in the environment is in no byte that the commands leave or say; in a recipe it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aligner.cli import app
from aligner.errors import RecipeError
from aligner.recipe.load import load_recipe
from tests.hub.test_upload import every_byte
from tests.test_pipeline import RECIPES, SFT, pipeline_rows

TOKEN = "hf_" + "cAnArYtOkEn" * 4
PASSWORDS = {
    "HF_TOKEN": TOKEN,
    "HUGGING_FACE_HUB_TOKEN": TOKEN[::-1],
    "WANDB_API_KEY": "wandb" + TOKEN,
    "AWS_SECRET_ACCESS_KEY": "aws" + TOKEN,
}
EVALUATE = """\
stage: evaluate
output: runs/evaluate
models: {sft: runs/all/sft}
suites: {prompts: [{path: prompts.jsonl}], samples_per_prompt: 1}
sampling: {max_new_tokens: 4}
"""
COMMANDS = (
    ("check all.yaml", 0),
    ("run all.yaml", 0),
    ("run all.yaml", 0),
    ("evaluate evaluate.yaml", 0),
    ("show all.yaml", 0),
    ("show all.yaml --dropped", 0),
    ("show all.yaml --html rows.html", 0),
    ("report runs/all", 0),
    ("publish runs/all/sft --repo you/tiny --dry-run", 0),
    ("doctor", 0),
    ("schema sft", 0),
    ("sft sft.yaml -s train.lerning_rate=1", 2),
    ("sft sft.yaml -s model.base=nowhere/at-all", 2),
    ("publish runs/all/sft --repo you/tiny", 2),
    ("sft broken.yaml", 2),
    ("crash", 1),
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recipes and rows of a small pipeline, and a home of its own with tokens in the environment."""
    for name, text in {**RECIPES, "evaluate": EVALUATE}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    for name, rows in pipeline_rows().items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "broken.yaml").write_text(SFT.replace("chats.jsonl", "broken.jsonl"))
    for name, value in PASSWORDS.items():
        monkeypatch.setenv(name, value)
    for name in ("HOME", "ALIGNER_HOME", "TMPDIR", "XDG_CACHE_HOME"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_no_byte_that_the_commands_leave_or_say_is_a_secret(
    home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ""
    for command, expected in COMMANDS:
        if command == "crash":  # our own fault in the middle of a stage: a traceback, and a failed run
            monkeypatch.setattr("aligner.stages.sft.save_model", None)
            command = "sft sft.yaml -s output=runs/crashed -s model.base=runs/all/base"
        result = CliRunner().invoke(app, command.split())
        said += result.output
        assert result.exit_code == expected, (command, result.output)
    out, err = capfd.readouterr()
    said += out + err
    assert "Traceback" in said and (home / "runs/all/report.html").exists() and (home / "rows.html").exists()
    left = every_byte(home)
    assert len(left) > 300_000 and b"Which colour has ball" in left
    for name, secret in PASSWORDS.items():
        assert secret.encode() not in left and secret not in said, name


@pytest.mark.parametrize(
    "secret",
    [TOKEN, "sk-" + "a1B2" * 12, "ghp_" + "x" * 36, "AKIA" + "A1" * 8, "-----BEGIN RSA PRIVATE KEY-----"],
)
def test_a_token_in_a_recipe_is_refused_and_not_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    places = {
        "value": (SFT.replace("runs/sft", f"runs/{secret}"), [], "r.yaml:2"),
        "key": (SFT + f'"{secret}": 1\n', [], "r.yaml:6"),
        "comment": (f"# {secret}\n" + SFT, [], "r.yaml:1"),
        "override": (SFT, [f"output={secret}"], "-s output"),
        "override's key": (SFT, [f"{secret}=1"], "-s"),
    }
    for text, overrides, place in places.values():
        (home / "r.yaml").write_text(text)
        with pytest.raises(RecipeError) as caught:
            load_recipe(Path("r.yaml"), overrides)
        assert [problem.where for problem in caught.value.problems] == [place]
        assert secret not in str(caught.value) and "HF_TOKEN" in str(caught.value)


def test_the_token_of_the_environment_is_known_whatever_it_looks_like(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "r.yaml").write_text(SFT.replace("runs/sft", "runs/opensesame"))
    load_recipe(Path("r.yaml"))
    monkeypatch.setenv("HF_TOKEN", "opensesame")
    with pytest.raises(RecipeError, match=r"r\.yaml:2: an access token stands here"):
        load_recipe(Path("r.yaml"))
