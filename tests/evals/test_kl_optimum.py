"""The optimum by reweighing against its enumeration, and against every other policy."""

from __future__ import annotations

import numpy as np
import pytest

from aligner.planning import planned_stages
from aligner.recipe.ppo import PpoRecipe
from scripts.kl_optimum import ROOT, Reached, Seed, compare, mean_optimum, optimum

BETAS = (0.05, 0.1, 0.2, 0.5)


def enumerated(reference: np.ndarray, rewards: np.ndarray, beta: float) -> tuple[np.ndarray, float]:
    """The optimal policy over a handful of answers, and its objective written out."""
    best = reference * np.exp(rewards / beta)
    best /= best.sum()
    return best, float(best @ rewards - beta * (best @ np.log(best / reference)))


def drawn_as_often(reference: np.ndarray, rewards: np.ndarray, samples: int) -> list[float]:
    """Samples that hold every answer exactly as often as it is likely: no noise is left."""
    return np.repeat(rewards, np.round(reference * samples).astype(int)).tolist()


@pytest.mark.parametrize("beta", BETAS)
def test_without_noise_reweighing_is_the_enumeration(beta):
    reference, rewards = np.array([0.5, 0.3, 0.15, 0.05]), np.array([-0.7, -1.0, -0.3, 0.0])
    best, objective = enumerated(reference, rewards, beta)
    found = optimum(drawn_as_often(reference, rewards, 1000), beta)
    assert found.objective == pytest.approx(objective, abs=1e-12)
    assert found.reward == pytest.approx(float(best @ rewards), abs=1e-12)
    assert found.kl == pytest.approx(float(best @ np.log(best / reference)), abs=1e-9)
    assert found.objective == pytest.approx(found.reward - beta * found.kl, abs=1e-12)


@pytest.mark.parametrize("beta", BETAS)
def test_no_policy_has_a_higher_objective(beta):
    generator = np.random.default_rng(0)
    reference, rewards = generator.dirichlet(np.ones(6)), generator.uniform(-1, 0, 6)
    best = enumerated(reference, rewards, beta)[1]
    for policy in generator.dirichlet(np.ones(6), size=500):
        assert policy @ rewards - beta * (policy @ np.log(policy / reference)) <= best + 1e-12


def test_samples_come_to_the_enumeration():
    generator = np.random.default_rng(1)
    reference, rewards = generator.dirichlet(np.ones(8)), generator.uniform(-1, 0, 8)
    objective = enumerated(reference, rewards, 0.1)[1]
    found = [optimum(generator.choice(rewards, p=reference, size=256).tolist(), 0.1) for _ in range(400)]
    assert np.mean([one.objective for one in found]) == pytest.approx(objective, abs=0.005)


def test_the_samples_that_count():
    assert optimum([-0.3] * 40, 0.05).effective == pytest.approx(40)
    assert optimum([-1.0] * 39 + [0.0], 0.05).effective == pytest.approx(1, abs=1e-6)


def test_the_share_of_the_gain_is_one_at_the_optimum_and_none_at_the_reference():
    reference = [[-1.0, 0.0, 0.0], [-1.0, -1.0, 0.0]]
    best = mean_optimum(reference, 0.2)
    policies = {0.2: Reached([best.reward] * 2, [best.kl] * 2)}
    assert compare(Seed(reference, policies), 0.2).share == pytest.approx(1)
    same = compare(Seed(reference, {0.2: Reached([-1 / 3, -2 / 3], [0.0, 0.0])}), 0.2)
    assert same.share == pytest.approx(0) and same.objective == pytest.approx(-0.5)


def test_the_recipe_asks_for_the_four_coefficients_and_one_reward(tmp_path, monkeypatch):
    (tmp_path / "runs/quickstart/sft").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    stages = [stage.recipe for stage in planned_stages(ROOT / "recipes/kl-optimum.yaml", [f"root={ROOT}"])]
    assert all(isinstance(stage, PpoRecipe) for stage in stages)
    assert [stage.ppo.kl_coef for stage in stages] == list(BETAS)
    assert {
        (stage.reward[0].rules, stage.ppo.missing_eos.mode, stage.ppo.missing_eos.value) for stage in stages
    } == {(str(ROOT / "recipes/kind-words.jsonl"), "replace", -1.0)}
