"""Gao's forms: fits of planted curves, and what is read of runs."""

from __future__ import annotations

import json
import sys
from math import log, sqrt

import numpy as np
import pytest

from aligner.evals.versus import best_of_n_kl
from scripts.over_optimisation import CHOSEN, PAIRS, Point, coefficients, fit, from_start, main, read_arm
from tests.evals.test_finished_runs import write_looks


def rl(d: float) -> float:
    """Alpha 1.5, beta .6; 0 at 0."""
    return d * (1.5 - 0.6 * log(d)) if d else 0.0


def best_of_n(d: float) -> float:
    """Alpha .9, beta .2."""
    return d * (0.9 - 0.2 * d)


def test_the_fit_finds_what_was_planted():
    d = [0.0, 0.3, 0.8, 1.7, 2.9, 4.0]
    assert coefficients(d, [rl(x) for x in d], "rl") == pytest.approx((1.5, 0.6))
    assert coefficients(d, [best_of_n(x) for x in d], "best-of-n") == pytest.approx((0.9, 0.2))


@pytest.mark.parametrize(
    ("form", "curve", "planted"), [("rl", rl, (1.5, 0.6)), ("best-of-n", best_of_n, (0.9, 0.2))]
)
def test_the_interval_holds_what_was_planted_about_as_often_as_it_says(form, curve, planted):
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(40):
        seeds = [
            [(d, curve(d) + 0.1 * generator.normal()) for d in np.linspace(0.1, 4, 16)] for _ in range(3)
        ]
        found = fit(seeds, form, resamples=200)
        hits.append(found.alpha_interval[0] <= planted[0] <= found.alpha_interval[1])
        hits.append(found.beta_interval[0] <= planted[1] <= found.beta_interval[1])
    assert 0.8 <= np.mean(hits) <= 1


def test_one_coefficient_that_differs_between_seeds_widens_the_interval():
    d = np.linspace(0.1, 4, 16)
    alike = fit([[(x, rl(x)) for x in d]] * 3, "rl", resamples=200)
    apart = fit([[(x, rl(x) + shift * x) for x in d] for shift in (-0.5, 0.0, 0.5)], "rl", resamples=200)
    assert alike.alpha_interval == pytest.approx((1.5, 1.5))
    assert apart.alpha == pytest.approx(1.5) and apart.alpha_interval[1] - apart.alpha_interval[0] > 0.5


def test_gains_are_over_the_first_and_a_kl_below_none_is_none():
    assert from_start([-1e-6, 4.0], [0.5, 1.5], [0.2, 0.1]) == [
        Point(0.0, 0.0, 0.0),
        Point(2.0, 1.0, pytest.approx(-0.1)),
    ]


def write_run(run):
    """A pipeline whose gold follows the planted curves exactly."""
    d = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    for pairs in PAIRS:
        write_looks(run / f"ppo-{pairs}", [(x * x, 2 * x, 0.3 + rl(x)) for x in d])
        results = {"reward/accuracy_share": 0.7}
        for n in CHOSEN:
            kl = best_of_n_kl(n)
            results[f"sft/chosen_kl_nats[best of {n}]"] = kl
            results[f"sft/chosen_proxy_reward[best of {n}]"] = sqrt(kl)
            results[f"sft/chosen_gold_reward[best of {n}]"] = 0.3 + best_of_n(sqrt(kl))
        chosen = run / f"chosen-{pairs}"
        chosen.mkdir()
        (chosen / "manifest.json").write_text(
            json.dumps({"stage": "evaluate", "recipe": {}, "status": "finished"})
        )
        (chosen / "results.json").write_text(json.dumps(results))
    return run


def test_the_tables_tell_the_planted_coefficients(tmp_path, monkeypatch, capsys):
    runs = [str(write_run(tmp_path / name)) for name in ("one", "two")]
    monkeypatch.setattr(sys, "argv", ["over_optimisation.py", *runs, "--out", str(tmp_path / "plot.png")])
    main()
    told = capsys.readouterr().out
    assert told.count("| 1.500 (1.500, 1.500) | 0.600 (0.600, 0.600) |") == len(PAIRS)
    assert told.count("| 0.900 (0.900, 0.900) | 0.200 (0.200, 0.200) |") == len(PAIRS)
    assert (tmp_path / "plot.png").stat().st_size > 0
    arm = read_arm(tmp_path / "one", 300)
    assert arm.rl[-1].proxy == pytest.approx(5.0) and arm.accuracy == 0.7
