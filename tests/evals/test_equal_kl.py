"""Gold at equal KL, and what PTX gives back: both on runs whose figures are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from aligner.planning import planned_stages
from aligner.recipe.evaluate import EvaluateRecipe
from scripts import alignment_tax, equal_kl
from scripts.equal_kl import CHOSEN, TRAINED, cell, gold_at
from tests.evals.test_finished_runs import write_looks

ROOT = Path(__file__).parents[2]


def write_results(folder: Path, results: dict[str, float]) -> str:
    folder.mkdir(parents=True)
    manifest = {"stage": "evaluate", "recipe": {}, "status": "finished"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "results.json").write_text(json.dumps(results))
    return str(folder)


def test_gold_lies_on_the_line_between_two_looks_where_the_kl_first_gets_there():
    curve = [(0.0, 0.0), (0.4, 0.2), (0.3, 0.9), (0.8, 1.4)]
    assert gold_at(curve, 0.2) == pytest.approx(0.1)
    assert gold_at(curve, 0.4) == pytest.approx(0.2)
    assert gold_at(curve, 0.6) == pytest.approx(1.2)
    assert gold_at(curve, 0.9) is None


def test_seeds_that_never_came_as_far_are_counted():
    seeds = [{"ppo": [(0.0, 0.0), (1.0, 1.0)]}, {"ppo": [(0.0, 0.0), (0.2, 1.0)]}]
    assert cell(seeds, "ppo", 0.1) == "0.300 ± 2.541"  # .1 and .5: 12.706 * .2828 / sqrt 2
    assert cell(seeds, "ppo", 0.5) == "0.500 (1 of 2 seeds)"
    assert cell(seeds, "ppo", 2.0) == "–"


def test_the_table_has_every_method(tmp_path, monkeypatch, capsys):
    for method in TRAINED:
        write_looks(
            tmp_path / method, [(0.0, 0.0, 0.3), (1.0, 0.0, 0.8)], stage="dpo" if method == "dpo" else "ppo"
        )
    chosen = {f"sft/chosen_kl_nats[best of {n}]": (n - 1) / 10 for n in CHOSEN}
    chosen |= {f"sft/chosen_gold_reward[best of {n}]": 0.2 + (n - 1) / 100 for n in CHOSEN}
    write_results(tmp_path / "chosen", chosen)
    monkeypatch.setattr(sys, "argv", ["equal_kl.py", str(tmp_path), "--out", str(tmp_path / "plot.png")])
    equal_kl.main()
    told = capsys.readouterr().out
    assert "| PPO | 0.050 | 0.100 | 0.150 | 0.200 | 0.300 | 0.400 | 0.500 at 1.00 |" in told
    assert "| best-of-n | 0.010 | 0.020 | 0.030 | 0.040 | 0.060 | 0.080 | 0.630 at 6.30 |" in told


def test_ptx_gives_back_a_share_of_what_ppo_cost(tmp_path, monkeypatch, capsys):
    bits = {"sft": 0.40, "ppo": 0.50, "ptx-low": 0.46, "ptx": 0.42}
    figures = dict.fromkeys(alignment_tax.WANTED, 0.5) | {
        f"{arm}/bits_per_byte": value for arm, value in bits.items()
    }
    run = write_results(tmp_path / "tax", figures)
    monkeypatch.setattr(sys, "argv", ["alignment_tax.py", run, "--out", str(tmp_path / "plot.png")])
    alignment_tax.main()
    told = capsys.readouterr().out.splitlines()
    assert told[3].startswith("| PPO | 0.500 (0.100) |") and told[3].endswith("| – |")
    assert [line.split("|")[-2].strip() for line in told[4:6]] == ["0.40", "0.80"]


def test_a_run_of_something_else_is_told(tmp_path, monkeypatch, capsys):
    run = write_results(tmp_path / "other", {"sft/bits_per_byte": 0.4})
    monkeypatch.setattr(sys, "argv", ["alignment_tax.py", run])
    with pytest.raises(SystemExit) as stopped:
        alignment_tax.main()
    assert stopped.value.code == 2 and f"{run}: results.json has no" in capsys.readouterr().err


def test_the_recipe_of_the_tax_measures_what_the_script_reads(tmp_path, monkeypatch):
    for name in ("sft", "reward"):
        (tmp_path / "runs/quickstart" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    stages = {s.name: s.recipe for s in planned_stages(ROOT / "recipes/alignment-tax.yaml", [f"root={ROOT}"])}
    asked = stages["evaluate"]
    assert isinstance(asked, EvaluateRecipe) and set(asked.models) == set(alignment_tax.ARMS)
    assert asked.suites.documents and set(asked.suites.tasks) == {"items", "phrasings"}
