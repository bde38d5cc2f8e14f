"""A base that is no folder and no model of the Hub is told at once, before anything is computed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

RECIPE = """stage: sft
output: run
model: {base: BASE}
data: {train: [{path: rows.jsonl, format: messages}]}
train: {steps: 1}
"""
ROW = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n'


class _Hub(BaseHTTPRequestHandler):
    """Knows one model, and says of others what the real one says."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        known = self.path.startswith("/api/models/known")
        body = (
            b'{"id": "known", "modelId": "known", "siblings": []}'
            if known
            else b'{"error": "Repository not found"}'
        )
        self.send_response(200 if known else 404)
        if not known:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Tests are quiet."""


@pytest.fixture
def hub() -> Iterator[str]:
    _Hub.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def asked(base: str, folder: Path, endpoint: str) -> str | None:
    """The fault that a fresh process finds with a base; its client is online, and `endpoint` is its Hub."""
    code = (
        "import sys; from aligner.hub.ask import unknown_model; problem = unknown_model(sys.argv[1]); "
        "print(problem.what if problem else 'fine')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, base],
        capture_output=True, text=True, check=True, cwd=folder, env=online(folder, endpoint),
    )  # fmt: skip
    return done.stdout.strip()


def online(folder: Path, endpoint: str) -> dict[str, str]:
    here = str(Path(__file__).resolve().parents[2])
    return os.environ | {
        "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder / "hf"), "PYTHONPATH": here,
    }  # fmt: skip


def test_a_model_that_the_hub_does_not_know_is_told(tmp_path: Path, hub: str) -> None:
    assert "the Hub has none of that name" in str(asked("flann", tmp_path, hub))
    assert asked("known", tmp_path, hub) == "fine"


def test_a_model_in_the_cache_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "hf/hub/models--owner--kept").mkdir(parents=True)
    assert asked("owner/kept", tmp_path, nowhere()) == "fine"
    assert "cannot be reached" in str(asked("owner/other", tmp_path, nowhere()))


def test_a_misspelt_base_ends_the_command_after_one_question(tmp_path: Path, hub: str) -> None:
    (tmp_path / "rows.jsonl").write_text(ROW, encoding="utf-8")
    (tmp_path / "sft.yaml").write_text(RECIPE.replace("BASE", "runs/flann"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "aligner", "sft", "sft.yaml"],
        capture_output=True, text=True, cwd=tmp_path, env=online(tmp_path, hub),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert 'no folder "runs/flann" is here' in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    assert _Hub.asked == ["/api/models/runs/flann"]


def nowhere() -> str:
    """An address of this machine that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
