"""`aligner doctor` says what is there, and is not content with what would not work."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from aligner.cli import app
from aligner.doctor import examine, library_finding, versions_tested

ROOT = Path(__file__).parent.parent


def finding(folder: Path, name: str) -> tuple[str, str, str]:
    found = {one.name: one for section in examine(folder) for one in section.findings}
    return found[name].value, found[name].why, found[name].state


def test_it_tells_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("ALIGNER_HOME", str(tmp_path / "home"))
    assert finding(tmp_path, "torch")[0] == version("torch")
    assert finding(tmp_path, "threads")[:2] == (str(torch.get_num_threads()), "OMP_NUM_THREADS is 1")
    assert finding(tmp_path, "cache (ALIGNER_HOME)")[0] == str(tmp_path / "home")
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize / 2**30
    assert abs(float(finding(tmp_path, "runs")[1].split()[0]) - free) < 0.5
    assert finding(tmp_path, "locks and fsync")[0] == "work"
    assert list(tmp_path.iterdir()) == []  # it leaves nothing behind
    assert finding(tmp_path, "precision: auto")[0] in ("bf16", "fp32")


@pytest.mark.parametrize(
    ("found", "needed", "tested", "extra", "state", "why"),
    [
        ("2.13.0+cpu", ">=2.10", "2.13.0", "", "ok", "as tested"),
        ("2.15.0", ">=2.10", "2.13.0", "", "note", "tested with 2.13.0"),
        ("2.9.1", ">=2.10", "2.13.0", "", "problem", "pip install 'torch>=2.10'"),
        (None, ">=2.10", "2.13.0", "", "problem", "pip install 'torch>=2.10'"),
        (None, ">=0.46", None, "quant", "note", "aligner[quant]"),
        ("1.0", "", None, "", "ok", "any version"),
    ],
)
def test_a_library_is_as_tested_or_other_or_will_not_do(
    found: str | None, needed: str, tested: str | None, extra: str, state: str, why: str
) -> None:
    told = library_finding("torch", found, needed, tested, extra=extra)
    assert told.state == state and why in told.why


def test_the_tested_set_is_the_lock_file() -> None:
    tested = versions_tested()
    assert f"\naccelerate=={tested['accelerate']}\n" in (ROOT / "requirements.lock").read_text()
    assert "huggingface-hub" in tested  # by the name the index compares


def test_a_secret_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    result = CliRunner().invoke(app, ["doctor", str(tmp_path)], env={"COLUMNS": "400"})
    assert result.exit_code == 0 and "nothing stands in the way" in result.stdout
    assert "hf_secret" not in result.output and finding(tmp_path, "token")[0] == "there"


def test_what_would_not_work_is_a_problem_and_an_exit_code(tmp_path: Path) -> None:
    missing = tmp_path / "file"
    missing.write_text("")
    result = CliRunner().invoke(app, ["doctor", str(missing)], env={"COLUMNS": "400"})
    assert result.exit_code == 2 and "to mend" in result.stdout and "local disk" in result.stdout


def test_torch_is_imported_when_the_machine_is_looked_at_and_not_before() -> None:
    code = "import sys, aligner.cli, aligner.doctor; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
