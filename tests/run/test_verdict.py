"""The sentences at the top of a report say what the numbers say, and no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aligner.run.facts import StageFacts, read_stages
from aligner.run.report import build_report
from aligner.run.verdict import called, verdict
from tests.run.fake import quickstart


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[StageFacts]:
    return read_stages(quickstart(tmp_path_factory.mktemp("runs") / "quickstart"))


def test_it_says_whether_the_reward_rose_by_how_much_and_what_was_trained_on_what(
    stages: list[StageFacts],
) -> None:
    told = verdict(stages)
    assert told[0] == (
        "ppo raises the true (gold) reward of sampled answers to held-out prompts: 0.410 → 0.510, by +0.110 "
        "(95 % interval 0.070 to 0.150)."
    )
    assert told[1] == "The price of ppo: 3.400 nats of KL to sft a response; 10 → 11 tokens a response."
    assert (
        "base was trained from nothing, 900 steps over 20\u202f480 documents: held-out bits per byte "
        in told[3]
    )
    assert told[4].startswith("sft was tuned from base, 370 steps over 6\u202f000 conversations")
    assert len([line for line in told if line.startswith("base")]) == 1  # no policy: its gain is no verdict


@pytest.mark.parametrize(
    ("low", "high", "verb"),
    [(0.07, 0.15, "raises"), (-0.02, 0.15, "does not measurably change"), (-0.3, -0.1, "lowers")],
)
def test_an_interval_around_zero_is_no_rise(
    stages: list[StageFacts], low: float, high: float, verb: str
) -> None:
    results = stages[-1].results | {"ppo/gold_gain_low": low, "ppo/gold_gain_high": high}
    assert verdict([*stages[:-1], replace(stages[-1], results=results)])[0].startswith(f"ppo {verb} the true")


def test_without_a_true_reward_the_learned_one_is_told(stages: list[StageFacts]) -> None:
    results = {key: value for key, value in stages[-1].results.items() if "gold" not in key}
    results |= {"ppo/proxy_gain": 0.4, "ppo/proxy_gain_low": 0.1, "ppo/proxy_gain_high": 0.7}
    results |= {"sft/proxy_reward": 0.0, "ppo/proxy_reward": 0.4}
    (told, *_) = verdict([*stages[:-1], replace(stages[-1], results=results)])
    assert told.startswith("ppo raises the learned (proxy) reward") and "0 → 0.400, by +0.400" in told


def test_a_stage_that_stopped_is_said_to_have(stages: list[StageFacts]) -> None:
    manifest = replace(stages[3].manifest, status="interrupted")
    assert verdict([replace(stages[3], manifest=manifest)]) == ["ppo is not finished (interrupted)."]


def test_parents_are_called_by_their_stage() -> None:
    assert called("/a/runs/sft/model#12ab") == "sft" and called("/a/b/sft#12ab") == "sft"
    assert called("you/name@main") == "you/name"


def test_the_page_begins_with_it(tmp_path: Path) -> None:
    page = build_report(quickstart(tmp_path / "quickstart")).read_text(encoding="utf-8")
    assert page.index("ppo raises the true (gold) reward") < page.index("Did it work?")
