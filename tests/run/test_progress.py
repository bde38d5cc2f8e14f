"""Where nobody watches, a few plain lines and the last one; on stderr."""

from __future__ import annotations

import pytest

from aligner.run import progress as module
from aligner.run.progress import progress


def test_plain_lines_are_few_and_the_end_is_told_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("sft", 40) as bar:
        for _ in range(40):
            now[0] += 1.0
            bar.advance(loss=2.0)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == "" and len(lines) == 4  # at 10, 20 and 30 s, and the end
    assert lines[0] == "sft: 10/40, 10 s, about 30 s left, loss 2"
    assert lines[-1] == "sft: 40/40, 40 s, loss 2"


def test_what_was_done_before_says_nothing_about_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("sft", 100, done=80) as bar:
        for _ in range(20):
            now[0] += 2.0
            bar.advance()
    assert capsys.readouterr().err.splitlines()[0] == "sft: 85/100, 10 s, about 30 s left"


def test_a_bar_moves_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    with progress("ppo", 3) as bar:
        bar.advance(2, reward=0.25)
        bar.advance()
    assert "ppo" in capsys.readouterr().err
