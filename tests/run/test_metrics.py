"""Metrics are named, finite, append-only, and cut back on resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aligner.errors import RunError, TrainingError
from aligner.run.glossary import BETTER, METRICS, RESULTS
from aligner.run.metrics import Metrics, describe, merged_results, parse_result_key


def metrics(folder: Path) -> Metrics:
    return Metrics(folder / "metrics.jsonl", seconds=lambda: 1.5)


def test_a_line_has_its_step_its_seconds_and_its_numbers(tmp_path: Path) -> None:
    log = metrics(tmp_path)
    log.log(3, {"train/loss_nats": 2, "train/grad_norm": 0.5})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 3, "seconds": 1.5, "train/loss_nats": 2.0, "train/grad_norm": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_stops_the_run_and_is_not_logged(tmp_path: Path, value: float) -> None:
    log = metrics(tmp_path)
    with pytest.raises(TrainingError, match=f"step 4: train/loss_nats is {value}"):
        log.log(4, {"train/grad_norm": 1.0, "train/loss_nats": value})
    assert log.rows() == []


def test_an_undefined_metric_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"train/los_nats.*did you mean \\?\"train/loss_nats"):
        metrics(tmp_path).log(1, {"train/los_nats": 1.0})


def test_cut_back_keeps_the_steps_up_to_the_checkpoint(tmp_path: Path) -> None:
    log = metrics(tmp_path)
    for step in (0, 10, 20, 30):
        log.log(step, {"train/loss_nats": step})
    log.cut_back(20)
    assert [row["step"] for row in log.rows()] == [0, 10, 20]
    log.log(30, {"train/loss_nats": 1.0})
    assert [row["step"] for row in log.rows()] == [0, 10, 20, 30]
    log.cut_back(-1)
    assert log.rows() == []


def test_a_torn_last_line_is_no_row_and_a_bad_line_is_told_with_its_number(tmp_path: Path) -> None:
    log = metrics(tmp_path)
    log.log(1, {"train/loss_nats": 1.0})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 2, "tra')
    assert [row["step"] for row in log.rows()] == [1]
    log.log(2, {"train/loss_nats": 1.0})
    assert [row["step"] for row in log.rows()] == [1, 2]
    path.write_text("{]\n" + path.read_text())
    with pytest.raises(RunError, match=r"metrics.jsonl:1: not a row of JSON"):
        log.rows()


def test_result_keys_come_apart() -> None:
    assert parse_result_key("sft-2/exact_match_share[items.fact]") == (
        "sft-2",
        "exact_match_share",
        "items.fact",
    )
    assert parse_result_key("ppo/gold_reward") == ("ppo", "gold_reward", "")


def test_every_metric_is_named_area_slash_what_and_described_in_a_sentence() -> None:
    for key, text in METRICS.items():
        assert parse_result_key(key).qualifier == ""
        assert text.endswith(".") and len(text) > 20
    known = {key.rpartition("/")[2] for key in METRICS} | set(RESULTS)
    assert set(BETTER) <= known
    assert describe("ppo/exact_match_share[items]") == RESULTS["exact_match_share"]
    assert describe("anything/never_heard_of") == ""


def test_the_results_of_stages_are_merged_and_none_hides_another() -> None:
    merged = merged_results(
        {"rm": {"reward/a_share": 1, "x/b": 2, "x/b[q]": 3}, "eval": {"reward/a_share": 4, "x/b[q]": 5}}
    )
    assert merged == {
        "reward/a_share[rm]": 1,
        "x/b": 2,
        "x/b[rm q]": 3,
        "reward/a_share[eval]": 4,
        "x/b[eval q]": 5,
    }
