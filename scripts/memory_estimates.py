"""What `aligner check` says of a stage's memory, beside the most that the stage held.

Every way is planned and run in a process of its own. Both figures are MiB above the process's level after its imports.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aligner.check import check_recipe
from aligner.models.heads import RewardStats, write_stats
from aligner.models.load import load_reward_base, save_model
from aligner.pipeline import stage_function
from aligner.recipe.load import complete_yaml, load_recipe
from aligner.recipe.model import LoraSpec, ModelSpec
from aligner.run.folder import RunFolder
from scripts.speed_memory import mib_now, mib_peak
from scripts.speed_ppo import SHAPES, make_world

RUNS = int(os.environ.get("BENCH_ROUNDS", 3))  # one is up to a fifth off another: the heap's holes
STEPS = 2  # with the second one's gradients there are the first one's moments
LORA = {"rank": 16, "alpha": 32}
WORLD = "data/world"
TRAIN = {"steps": STEPS, "rows_per_step": 32, "learning_rate": 1e-4}
SFT = {
    "stage": "sft",
    "data": {
        "train": [{"path": f"{WORLD}/dialogues.jsonl.gz", "format": "messages", "cap": 256}],
        "max_length": 128,
    },
    "train": TRAIN,
}
REWARD = {
    "stage": "reward",
    "data": {
        "train": [{"path": f"{WORLD}/pairs.jsonl.gz", "format": "pairs", "cap": 256}],
        "max_length": 128,
    },
    "train": TRAIN,
}
PPO = {
    "stage": "ppo",
    "data": {"train": [{"path": "{world}/prompts.jsonl", "format": "prompts"}]},
    "reward": [{"model": "{world}/adapter"}],
    "sampling": {"max_new_tokens": 48},
    "ppo": {"steps": 1, "prompts_per_step": 64, "epochs": STEPS, "value": "adapter"},
}
BASE, TUNED = {"base": "{world}/base"}, {"base": "{world}/base", "lora": LORA}
WAYS: dict[str, dict[str, Any]] = {
    "SFT, all weights": SFT | {"model": BASE},
    "SFT, LoRA": SFT | {"model": TUNED},
    "SFT, LoRA, 4bit": SFT | {"model": TUNED | {"quantize": "4bit"}},
    "reward, LoRA": REWARD | {"model": TUNED},
    "PPO, LoRA": PPO | {"model": TUNED},
    "PPO, LoRA, 8bit": PPO | {"model": TUNED | {"quantize": "8bit"}},
    "PPO, LoRA, 4bit": PPO | {"model": TUNED | {"quantize": "4bit"}},
    "PPO, all weights": PPO | {"model": BASE},
}


def main(size: str, ways: list[str]) -> None:
    """Plan and run the ways for a model of a size of `scripts/bench ppo`, and print one table."""
    table = Table("", "MiB, the plan's", "measured", f"of {RUNS}", "plan / measured", box=None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_world(folder, size)
        loaded = load_reward_base(ModelSpec(base=str(folder / "base"), lora=LoraSpec(**LORA)))
        save_model(loaded, folder / "adapter" / "model", base_folder=folder / "unused")
        write_stats(folder / "adapter" / "model", RewardStats(0.0, 1.0, 256))
        for number, way in enumerate(ways):
            recipe = folder / f"{number}.yaml"
            text = json.dumps(WAYS[way] | {"output": "{world}/run" + str(number)})
            recipe.write_text(text.replace("{world}", name))
            planned = of_process("plan", recipe)
            held = sorted(of_process("run", recipe) for _ in range(RUNS))
            ratio, spread = planned / statistics.median(held), f"{held[0]:.0f} to {held[-1]:.0f}"
            print(f"{way}: {planned:.0f} MiB planned, {spread} measured", flush=True)
            table.add_row(way, f"{planned:.0f}", f"{statistics.median(held):.0f}", spread, f"{ratio:.2f}")
    Console().print(table)


def of_process(part: str, recipe: Path) -> float:
    """MiB that a part says in a process of its own."""
    command = [sys.executable, "-m", "scripts.memory_estimates", part, str(recipe)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def planned_mib(recipe: Path) -> float:
    """The plan's figure."""
    (stage,) = check_recipe(recipe).stages
    for row in stage.rows:
        if row.name == "memory":
            print(row.value, row.why, file=sys.stderr)
            return float(row.value.removesuffix(" GiB")) * 1024
    raise LookupError(f"the plan of {recipe} has no memory")


def held_mib(path: Path) -> float:
    """The most that the stage holds above the level after imports."""
    recipe = load_recipe(path).recipe
    function = stage_function(recipe)
    if getattr(recipe, "model", None) and getattr(recipe.model, "quantize", "none") != "none":
        importlib.import_module("bitsandbytes")  # else it counts as held by the stage
    level = mib_now()
    with RunFolder.open(recipe, recipe_text=complete_yaml(recipe), fresh=True) as run:
        function(recipe, run)
    return mib_peak() - level


if __name__ == "__main__":
    if sys.argv[1] in ("plan", "run"):
        print((planned_mib if sys.argv[1] == "plan" else held_mib)(Path(sys.argv[2])))
    else:
        given = sys.argv[1] if sys.argv[1] in SHAPES else "10M"
        main(given, [way for way in WAYS if not sys.argv[2:] or way in sys.argv[2:]])
