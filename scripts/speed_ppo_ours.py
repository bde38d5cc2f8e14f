"""Our side of `scripts/bench ppo`: one run of the PPO stage, as a recipe would have it."""

from __future__ import annotations

import json
import statistics
import sys
from itertools import pairwise
from pathlib import Path

from aligner.recipe.ppo import PpoRecipe
from aligner.run.folder import RunFolder
from aligner.stages.ppo import train_ppo
from scripts.speed_memory import mib_now, mib_peak


def main(order: Path, outcome: Path) -> None:
    """Read the job, train, write what came of it."""
    job, level = json.loads(order.read_text()), mib_now()
    recipe = PpoRecipe.model_validate(settings(job))
    with RunFolder.open(recipe, recipe_text="") as run:
        train_ppo(recipe, run)
        rows = [row for row in run.metrics.rows() if "ppo/proxy_reward" in row]
    seconds = [float(b["seconds"]) - float(a["seconds"]) for a, b in pairwise(rows)]
    rewards = [float(row["ppo/proxy_reward"]) for row in rows]
    outcome.write_text(
        json.dumps(
            {
                "episodes_per_second": job["episodes"] / statistics.median(seconds),
                "peak_mib": mib_peak() - level,
                "reward": statistics.mean(rewards[-max(1, len(rewards) // 3) :]),
            }
        )
    )


def settings(job: dict) -> dict:
    """The recipe of the job; a response without an end costs nothing, as in TRL."""
    world = job["world"]
    lora = {"lora": {"rank": job["rank"], "alpha": 2 * job["rank"]}} if job["lora"] else {}
    return {
        "stage": "ppo", "seed": job["seed"], "output": job["output"], "model": {"base": f"{world}/base"} | lora,
        "reward": [{"model": f"{world}/reward"}],
        "data": {"train": [{"path": f"{world}/prompts.jsonl", "format": "prompts"}]},
        "sampling": {"max_new_tokens": job["new_tokens"], "temperature": job["temperature"]},
        "ppo": {
            "steps": job["steps"], "prompts_per_step": job["episodes"], "epochs": job["epochs"],
            "learning_rate": job["learning_rate"], "kl_coef": job["kl_coef"], "precision": job["precision"],
            "missing_eos": {"mode": "subtract", "value": 0.0}, "max_grad_norm": 1e9,
        },
    }  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
