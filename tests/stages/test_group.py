"""RLOO and GRPO on a tiny real model: they learn, stop and go on bit by bit, and leave a whole run behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import aligner.stages.group
from aligner.errors import Interrupted, ModelError
from aligner.models.load import load_trained
from aligner.recipe.group import GroupRecipe
from aligner.recipe.stages import RECIPES
from aligner.run.folder import RunFolder
from aligner.run.plots import plots_of
from aligner.run.report_tables import movements
from aligner.stages.group import train_group
from aligner.stages.stage import StageResult
from tests.stages.test_dpo import lines
from tests.stages.test_ppo import recipe as ppo_recipe
from tests.stages.test_ppo import world  # noqa: F401
from tests.stages.tools import assert_bit_identical, weights

STAGES = ("rloo", "grpo", "rejection")
CLOCK = "tokens_per_second"


def recipe(world: Path, output: Path, stage: str, *, lora: Any = None, **numbers: Any) -> GroupRecipe:  # noqa: F811
    """The recipe of the PPO tests with one word changed, and the critic's numbers left out."""
    values = ppo_recipe(world, output, lora=lora).model_dump(exclude_unset=True)
    numbers_of_ppo = values.pop("ppo")
    shared = RECIPES[stage].model_fields[stage].annotation.model_fields  # type: ignore[union-attr]
    kept = {key: value for key, value in numbers_of_ppo.items() if key in shared}
    settings = {**kept, "prompts_per_step": 2, "samples_per_prompt": 4, **numbers}
    found = RECIPES[stage].model_validate(values | {"stage": stage, stage: settings})
    assert isinstance(found, GroupRecipe)
    return found


def run_it(plan: GroupRecipe) -> StageResult:
    with RunFolder.open(plan, recipe_text="") as run:
        return train_group(plan, run)


def logged(folder: Path) -> list[dict[str, Any]]:
    rows = lines(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if CLOCK not in key} for row in rows]


@pytest.mark.parametrize("stage", STAGES)
def test_a_planted_reward_rises(world: Path, tmp_path: Path, stage: str) -> None:  # noqa: F811
    more = {"steps": 16, "prompts_per_step": 16, "epochs": 2, "learning_rate": 1e-2, "evaluate_every": 16}
    found = run_it(recipe(world, tmp_path / "run", stage, **more)).results
    rise = found[f"{stage}/holdout_proxy_reward"] - found[f"{stage}/holdout_proxy_reward[start]"]
    assert rise > 0.1 and found["kl/holdout_ref_nats_per_response"] > 0.1
    rows = [row for row in logged(tmp_path / "run") if f"{stage}/proxy_reward" in row]
    assert abs(rows[0]["kl/ref_nats_per_response"]) < 1e-4
    assert all(row.get(f"{stage}/ratio_first_error", 0) < 1e-4 for row in rows)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4, "dropout": 0.2}])
def test_a_run_leaves_what_ppo_leaves(world: Path, tmp_path: Path, stage: str, lora: Any) -> None:  # noqa: F811
    result = run_it(recipe(world, tmp_path / "run", stage, lora=lora, rows_per_device=3))
    assert result.artifact == tmp_path / "run" / "model"
    load_trained(tmp_path / "run")
    rows = logged(tmp_path / "run")
    looks = [row for row in rows if f"{stage}/holdout_proxy_reward" in row]
    assert [row["step"] for row in looks] == [0, 3, 6]
    assert {f"{stage}/flat_groups_share", f"{stage}/gold_reward", f"{stage}/kl_coef"} <= set(rows[1])
    samples = lines(tmp_path / "run" / "samples.jsonl")
    assert [row["step"] for row in samples] == [0] * 4 + [3] * 4 + [6] * 4
    names = {plot.name for plot in plots_of(rows)}
    assert {"reward", "holdout_reward", "kl", "length"} <= names and ("ppo_health" in names) == (
        stage != "rejection"
    )
    assert "true (gold) reward, held-out prompts" in {one.name for one in movements(stage, rows)}


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_run_goes_on_bit_by_bit(
    world: Path,  # noqa: F811
    tmp_path: Path,
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_it(recipe(world, tmp_path / "straight", stage))
    train_step = aligner.stages.group.train_step

    def interrupted(job: Any, step: int) -> dict[str, float]:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return train_step(job, step)

    monkeypatch.setattr(aligner.stages.group, "train_step", interrupted)
    with pytest.raises(Interrupted, match="stopped at step 4 of 6"):
        run_it(recipe(world, tmp_path / "broken", stage))
    monkeypatch.undo()
    torch.manual_seed(99)  # what other code did to torch's generator does not matter
    run_it(recipe(world, tmp_path / "broken", stage))
    one, other = (weights(tmp_path / name / "model") for name in ("straight", "broken"))
    assert_bit_identical(one, other)
    assert logged(tmp_path / "straight") == logged(tmp_path / "broken")
    assert lines(tmp_path / "straight" / "samples.jsonl") == lines(tmp_path / "broken" / "samples.jsonl")


@pytest.mark.parametrize("stage", STAGES)
def test_parts_of_a_step_are_the_step(world: Path, tmp_path: Path, stage: str) -> None:  # noqa: F811
    for name, rows in (("whole", None), ("parts", 3)):
        run_it(recipe(world, tmp_path / name, stage, rows_per_device=rows, steps=2))
    one, other = (weights(tmp_path / name / "model") for name in ("whole", "parts"))
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_a_rate_of_gains_needs_gains(world: Path, tmp_path: Path) -> None:  # noqa: F811
    plan = recipe(world, tmp_path / "run", "rloo", lora={"rank": 2, "alpha": 4}, gain_learning_rate=1e-2)
    with pytest.raises(ModelError, match="rloo.gain_learning_rate: no vector is trained"):
        run_it(plan)


def test_where_no_response_leads_nothing_is_learnt(world: Path, tmp_path: Path) -> None:  # noqa: F811
    """Every response is cut at its first token and earns the same: the KL alone could move the policy, and is 0."""
    rule = {"mode": "replace", "value": 0.0}
    plan = recipe(world, tmp_path / "run", "rloo", missing_eos=rule, steps=1, epochs=1, minibatches=1)
    plan = plan.model_copy(update={"sampling": plan.sampling.model_copy(update={"max_new_tokens": 1})})
    run_it(plan)
    row = next(row for row in logged(tmp_path / "run") if "rloo/flat_groups_share" in row)
    assert row["rloo/flat_groups_share"] == 1.0 and row["rloo/grad_norm"] < 1e-4


def test_rejection_sampling_learns_the_best_as_sft_does(world: Path, tmp_path: Path) -> None:  # noqa: F811
    """One step: the loss is transformers' own over the response of each group that scored best, at temperature 1."""
    numbers = {"steps": 1, "epochs": 1, "minibatches": 1, "learning_rate": 1e-12}
    plan = recipe(world, tmp_path / "run", "rejection", **numbers)
    plan = plan.model_copy(update={"sampling": plan.sampling.model_copy(update={"temperature": 0.7})})
    kept: list[tuple[list[int], list[int]]] = []
    best_responses = aligner.stages.group.best_responses

    def watched(batch: Any, scores_B: torch.Tensor, spec: Any) -> Any:
        best = best_responses(batch, scores_B, spec)
        for group, response in enumerate(map(best.rollout.response, range(2))):
            places = [i for i in range(4 * group, 4 * group + 4) if batch.rollout.response(i) == response]
            assert scores_B[places].max() == scores_B[4 * group : 4 * group + 4].max()
            kept.append((best.rollout.prompts[group], response))
        return best

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aligner.stages.group, "best_responses", watched)
        run_it(plan)
    model = load_trained(world / "base").model
    nats = 0.0
    for prompt, response in kept:
        ids = torch.tensor([prompt + response])
        labels = torch.tensor([[-100] * len(prompt) + response])
        nats += float(model(input_ids=ids, labels=labels).loss) * len(response)
    row = next(row for row in logged(tmp_path / "run") if "rejection/loss_nats" in row)
    assert row["rejection/loss_nats"] == pytest.approx(nats / sum(len(r) for _, r in kept), rel=1e-5)
