"""The defects of TRL's last PPO trainer (1.12.0) that lie in its loop: none of them is ours (see tests/rl/test_trl_defects.py)."""

import json
import random

import numpy
import pytest
import torch

from aligner.errors import RunError
from aligner.models.load import load_trained
from aligner.run.checkpoint import load_newest
from tests.stages.ppo_world import assert_same_run, lines, recipe, run_it, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def straddling(world, tmp_path_factory):
    """8 prompts, 3 a step: the second pass over the prompts begins in the middle of the third step."""
    folder = tmp_path_factory.mktemp("straddling") / "run"
    plan = recipe(
        world, folder, steps=5, prompts_per_step=3, minibatches=3, evaluate_every=2, checkpoint_every=5
    )
    run_it(plan)
    return folder


def test_trl_defect_03_the_end_of_the_prompts_adds_no_optimiser_steps(straddling):
    tensors = load_newest(straddling / "checkpoints").tensors
    steps = {int(value) for name, value in tensors.items() if name.startswith("adam.step.")}
    assert steps == {5 * 2 * 3}  # steps x epochs x minibatches


def test_trl_defect_12_every_random_choice_is_seeded(world, tmp_path):
    for name, noise in (("a", 1), ("b", 2)):
        random.seed(noise)
        numpy.random.seed(noise)
        torch.manual_seed(noise)
        run_it(recipe(world, tmp_path / name, steps=2))
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_trl_defect_13_held_out_prompts_are_looked_at_when_the_recipe_says(straddling):
    rows = lines(straddling, "metrics.jsonl")
    looks = [row["step"] for row in rows if "ppo/holdout_proxy_reward" in row]
    assert looks == [0, 2, 4, 5]
    assert [row["step"] for row in rows if "ppo/policy_loss" in row] == [1, 2, 3, 4, 5]


def test_trl_defect_15_the_policy_is_saved_alone_and_the_critic_beside_it(straddling, world):
    saved = set(load_trained(straddling).model.state_dict())
    assert saved == set(load_trained(world / "base").model.state_dict())
    assert (straddling / "value_head.safetensors").exists()


def test_trl_defect_19_nothing_that_was_there_is_removed(world, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("years of work")
    with pytest.raises(RunError, match="not a run folder"):
        run_it(recipe(world, folder))
    assert (folder / "chapter.txt").read_text() == "years of work"


def test_trl_defect_19_every_token_has_an_embedding(straddling):
    loaded = load_trained(straddling)
    assert len(loaded.tokenizer) <= loaded.model.get_input_embeddings().num_embeddings
    assert loaded.tokenizer.pad_token_id < loaded.model.get_input_embeddings().num_embeddings
    assert loaded.tokenizer.pad_token_id != loaded.tokenizer.eos_token_id
    assert json.loads((straddling / "manifest.json").read_text())["status"] in ("running", "finished")
