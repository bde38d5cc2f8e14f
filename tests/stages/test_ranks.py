"""Whole stages on two processes: both learn, the first writes, and what they leave is what one leaves."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aligner.recipe.load import complete_yaml
from aligner.recipe.ppo import PpoRecipe
from aligner.run.checkpoint import load_newest
from aligner.run.manifest import Manifest
from aligner.stages.sft import train_sft
from tests.pair import Pair
from tests.stages.ppo_world import assert_same_run, lines, recipe, run_it, write_world
from tests.stages.ranks_work import run_on_ranks, run_pipeline_on_ranks
from tests.stages.test_sft import recipe as sft_recipe
from tests.stages.tools import open_run, weights, write_jsonl
from tests.test_pipeline import RECIPES as PIPELINE_RECIPES
from tests.test_pipeline import pipeline_rows
from tests.tiny import SENTENCES

ADAPTER = "model/adapter_model.safetensors"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = write_world(tmp_path_factory.mktemp("world"))
    (folder / "text.txt").write_text("\n".join(SENTENCES))
    return folder


def whole(world: Path, output: Path, *, reward: str = "vowels", **ppo: Any) -> PpoRecipe:
    """Shares of unequal length, and every part that carries something from one step to the next."""
    settings = {
        "steps": 4, "prompts_per_step": 7, "minibatches": 1, "evaluate_every": 2, "learning_rate": 1e-3, "kl_coef": 0.1,
        "adaptive_kl": {"target": 0.2, "horizon": 40}, "keep_best": "proxy", "rows_per_device": 2,
    }  # fmt: skip
    lora = {"rank": 4, "alpha": 8.0}
    plan = recipe(world, output, reward=f"tests.rl.planted:{reward}", lora=lora, **(settings | ppo))
    text = {"sources": [{"path": str(world / "text.txt"), "format": "text"}]}
    ptx = text | {"coef": 0.1, "rows_per_step": 3, "block_length": 16}
    return PpoRecipe.model_validate(plan.model_dump() | {"ptx": ptx})


def test_a_run_on_two_ranks_is_the_run_on_one(pair: Pair, world: Path, tmp_path: Path) -> None:
    alone = run_it(whole(world, tmp_path / "one"))
    (fault, results), second = pair(run_on_ranks, whole(world, tmp_path / "two"))
    assert (fault, second) == ("", ("", {}))
    one, two = (load_file(tmp_path / name / ADAPTER) for name in ("one", "two"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4
    assert results.keys() == alone.results.keys()
    metrics, samples = (
        [lines(tmp_path / folder, name) for folder in ("one", "two")]
        for name in ("metrics.jsonl", "samples.jsonl")
    )
    assert [row["response"] for row in samples[0]] == [row["response"] for row in samples[1]]
    for found, wanted in zip(*metrics, strict=True):
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    assert Manifest.read(tmp_path / "two").status == "finished"


def test_two_ranks_go_on_bit_by_bit(pair: Pair, world: Path, tmp_path: Path) -> None:
    """Ctrl-C came to one of them; the luck of each one's own generator goes on, too."""
    pair(run_on_ranks, whole(world, tmp_path / "straight", reward="dice"))
    plan = whole(world, tmp_path / "broken", reward="dice")
    told = [fault for fault, _ in pair(run_on_ranks, plan, 1)]
    assert told[0] == told[1] and told[0].startswith("Interrupted") and "stopped at step 2 of 4" in told[0]
    pair(random.seed, 99)
    pair(run_on_ranks, plan)
    assert_same_run(tmp_path / "straight", tmp_path / "broken", ADAPTER)


def test_a_reward_that_fails_on_one_rank_ends_both_with_the_step_before_saved(
    pair: Pair, world: Path, tmp_path: Path
) -> None:
    plan = whole(world, tmp_path / "run", reward="failing_beside")
    told = [fault for fault, _ in pair(run_on_ranks, plan)]
    assert told[0] == told[1] and told[0].startswith("Stopped: reward") and "nan" in told[0]
    found = load_newest(tmp_path / "run" / "checkpoints")
    assert found is not None and found.step == 1


def test_sft_on_two_ranks_is_sft_on_one(pair: Pair, tmp_path: Path) -> None:
    """Adam makes of rounding (1e-7 of a gradient) at most this much of a weight in six steps."""
    numbers = {"steps": 6, "rows_per_device": 2, "optimizer": "adamw", "checkpoint_every": 4}
    plan = sft_recipe(tmp_path, "one", **numbers)
    with open_run(plan) as run:
        train_sft(plan, run)
    (fault, results), second = pair(run_on_ranks, sft_recipe(tmp_path, "two", **numbers))
    assert (fault, second) == ("", ("", {})) and results
    one, two = (weights(tmp_path / name / "model") for name in ("one", "two"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 2e-5
    logged = [
        [
            row["train/loss_nats"]
            for row in lines(tmp_path / name, "metrics.jsonl")
            if "train/loss_nats" in row
        ]
        for name in ("one", "two")
    ]
    assert logged[1] == pytest.approx(logged[0], rel=1e-5)
    kept = load_newest(tmp_path / "two" / "checkpoints")
    assert kept is not None and kept.step == 6 and "rank1.rng.torch" in kept.tensors  # both had a part in it


def test_a_pipeline_runs_on_two_ranks_and_is_left_alone_when_it_is_finished(
    pair: Pair, tmp_path: Path
) -> None:
    """Pretraining, SFT and reward model by Hugging Face's loop, PPO by ours."""
    for name, text in PIPELINE_RECIPES.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    for name, rows in pipeline_rows().items():
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    assert pair(run_pipeline_on_ranks, tmp_path) == ["done", ""]
    stages = [Manifest.read(tmp_path / "runs/all" / name) for name in ("base", "sft", "reward", "ppo")]
    assert [stage.status for stage in stages] == ["finished"] * 4
    assert all(stage.artifacts for stage in stages)
    assert pair(run_pipeline_on_ranks, tmp_path) == ["already_done", ""]


def test_sft_on_two_ranks_goes_on_bit_by_bit(pair: Pair, tmp_path: Path) -> None:
    """Between two lines of metrics, so what each rank has added up since the last one goes on, too."""
    numbers = {"steps": 6, "rows_per_device": 2, "optimizer": "adamw", "log_every": 2}
    pair(run_on_ranks, sft_recipe(tmp_path, "straight", **numbers))
    plan = sft_recipe(tmp_path, "broken", **numbers)
    told = [fault for fault, _ in pair(run_on_ranks, plan, 2)]
    assert told[0] == told[1] and told[0].startswith("Interrupted") and "stopped at step 3 of 6" in told[0]
    pair(random.seed, 99)
    pair(run_on_ranks, plan)
    one, two = (weights(tmp_path / name / "model") for name in ("straight", "broken"))
    assert all(torch.equal(one[name], two[name]) for name in one | two)
    logged = [
        [
            {key: value for key, value in row.items() if "second" not in key}
            for row in lines(tmp_path / name, "metrics.jsonl")
        ]
        for name in ("straight", "broken")
    ]
    assert logged[0] == logged[1] and len(logged[0]) >= 3


def test_a_process_that_dies_in_a_trainers_stage_is_told_of_by_the_others(tmp_path: Path) -> None:
    plan = sft_recipe(tmp_path, "run", steps=6, rows_per_device=2)
    (tmp_path / "sft.yaml").write_text(complete_yaml(plan))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        said = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1], "WORLD_SIZE": 2}
    works = (
        ["-m", "aligner", "sft", str(tmp_path / "sft.yaml")],
        ["-c", "from tests.stages.ranks_work import follow_and_die as work; work()"],
    )
    processes = [
        subprocess.Popen(
            [sys.executable, *work], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            | {name: str(value) for name, value in {**said, "RANK": rank, "LOCAL_RANK": rank}.items()},
        )
        for rank, work in enumerate(works)
    ]  # fmt: skip
    try:
        told = [process.communicate(timeout=90)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [2, 9], told
    assert "another process of this launch has ended" in told[0] and "Traceback" not in told[0]
    assert Manifest.read(tmp_path / "run").status == "failed"


def test_the_command_runs_under_a_launcher(world: Path, tmp_path: Path) -> None:
    plan = whole(world, tmp_path / "run", steps=2)
    (tmp_path / "ppo.yaml").write_text(complete_yaml(plan))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    found = subprocess.run(
        [*launcher, "-m", "aligner", "ppo", str(tmp_path / "ppo.yaml")],
        capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("done:") == 1 and "Traceback" not in found.stderr
    assert Manifest.read(tmp_path / "run").status == "finished"
    steps = [row["step"] for row in map(json.loads, (tmp_path / "run" / "metrics.jsonl").open())]
    assert steps == [0, 1, 2, 2]
    assert torch.isfinite(
        load_file(tmp_path / "run" / ADAPTER)[
            "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
        ]
    ).all()
