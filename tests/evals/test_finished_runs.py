"""What the experiments' scripts read of finished runs, and their intervals over seeds."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path
from statistics import stdev

import pytest
from scipy.stats import t

from aligner.errors import RunError
from scripts.finished_runs import Look, finished, half_width, named_by, read_each, read_looks, spread


def write_looks(folder: Path, looks: list[tuple[float, float, float]], *, stage: str = "ppo") -> None:
    """A finished run with a look every ten steps: (KL, proxy, gold) each; and a training step, which is none."""
    folder.mkdir(parents=True)
    manifest = {"stage": stage, "recipe": {}, "status": "finished"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    rows = [
        {
            "step": 10 * number,
            "kl/holdout_ref_nats_per_response": kl,
            f"{stage}/holdout_proxy_reward": proxy,
            f"{stage}/holdout_gold_reward": gold,
        }
        for number, (kl, proxy, gold) in enumerate(looks)
    ]
    lines = [json.dumps(row) for row in [*rows, {"step": 1, f"{stage}/proxy_reward": 9.0}]]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("count", range(2, 11))
def test_the_interval_is_students(count):
    values = [float(number**2) for number in range(count)]
    wanted = t.ppf(0.975, count - 1) * stdev(values) / sqrt(count)
    assert half_width(values) == pytest.approx(wanted, rel=1e-3)


def test_one_seed_has_no_interval():
    assert spread([0.5]) == "0.500"
    assert spread([1.0, 2.0, 3.0], 2) == "2.00 ± 2.48"


@pytest.mark.parametrize("stage", ["ppo", "rloo", "dpo"])
def test_looks_are_read_of_every_stage_that_has_them(tmp_path, stage):
    write_looks(tmp_path / "run", [(0.0, 0.1, 0.2), (0.5, 0.6, 0.7)], stage=stage)
    assert read_looks(tmp_path / "run") == [Look(0, 0.0, 0.1, 0.2), Look(10, 0.5, 0.6, 0.7)]


def test_what_is_wrong_with_several_runs_is_told_at_once(tmp_path):
    write_looks(tmp_path / "whole", [(0.0, 0.0, 0.0)])
    write_looks(tmp_path / "blind", [])
    (tmp_path / "half").mkdir()
    (tmp_path / "half/manifest.json").write_text(
        json.dumps({"stage": "ppo", "recipe": {}, "status": "running"})
    )
    with pytest.raises(RunError) as caught:
        read_each([tmp_path / name for name in ("whole", "blind", "half", "none")], read_looks)
    told = str(caught.value)
    assert "never looked at held-out prompts" in told and "is running" in told and "not a run folder" in told
    assert str(tmp_path / "whole") not in told
    assert finished(tmp_path / "whole").stage == "ppo"


def test_what_a_recipe_names_is_found_from_where_it_was_run(tmp_path):
    run = tmp_path / "seed-1/runs/mock/beta"
    assert named_by(run, "runs/mock/beta", "runs/quickstart/sft") == tmp_path / "seed-1/runs/quickstart/sft"
    assert named_by(run, "elsewhere/beta", "runs/sft") == Path("runs/sft")
    assert named_by(run, "runs/mock/beta", "/data/sft") == Path("/data/sft")
