"""What PPO's four roles hold: on one backbone, plain and quantised, and as models of their own.

Each way is opened in a process of its own, as the stage opens it, and takes one step. The last line is what one pass
over twice as many rows would save beside the passes of reference and reward, if their two adapters could share one.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from aligner.models.heads import RewardStats, write_stats
from aligner.models.load import load_reward_base, load_trained, save_model
from aligner.recipe.model import LoraSpec, ModelSpec
from aligner.recipe.ppo import PpoRecipe
from aligner.run.folder import RunFolder
from aligner.stages.ppo import train_step
from aligner.stages.ppo_job import prepare
from scripts.speed_memory import mib_now, mib_peak
from scripts.speed_ppo import SHAPES, make_world

LORA = {"rank": 16, "alpha": 32}
WAYS = {  # model, reward run, value
    "one backbone": ({"lora": LORA}, "adapter", "adapter"),
    "one backbone, 8bit": ({"lora": LORA, "quantize": "8bit"}, "adapter", "adapter"),
    "one backbone, 4bit": ({"lora": LORA, "quantize": "4bit"}, "adapter", "adapter"),
    "value head on the policy": ({"lora": LORA}, "adapter", "head"),
    "reward model apart": ({"lora": LORA}, "reward", "adapter"),
    "all weights trained, reward model apart": ({}, "reward", "adapter"),
}
TURNS = 7


def main(size: str) -> None:
    """Open every way for models of a size of `scripts/bench ppo`, and print one table."""
    table = Table("", "MiB when opened", "weights of the base", "MiB at most in a step", box=None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_world(folder, size)
        loaded = load_reward_base(ModelSpec(base=str(folder / "base"), lora=LoraSpec(rank=16, alpha=32)))
        save_model(loaded, folder / "adapter" / "model", base_folder=folder / "unused")
        write_stats(folder / "adapter" / "model", RewardStats(0.0, 1.0, 256))
        base = (folder / "base" / "model.safetensors").stat().st_size / 2**20
        for way in WAYS:
            command = [sys.executable, "-m", "scripts.memory_roles", str(folder), way]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            opened, peak = json.loads(done.stdout.splitlines()[-1])
            print(f"{way}: {opened:.0f} MiB, at most {peak:.0f}", flush=True)
            table.add_row(way, f"{opened:.0f}", f"{opened / base:.2f}", f"{peak:.0f}")
        Console().print(table)
        print(passes_line(folder / "base"))


def measure(folder: Path, way: str) -> None:
    """MiB above the level after imports: when everything is opened, and at most in a step."""
    model, reward, value = WAYS[way]
    level = mib_now()
    recipe = PpoRecipe.model_validate(
        {
            "stage": "ppo", "output": str(folder / way), "model": {"base": str(folder / "base")} | model,
            "reward": [{"model": str(folder / reward)}],
            "data": {"train": [{"path": str(folder / "prompts.jsonl"), "format": "prompts"}]},
            "sampling": {"max_new_tokens": 48, "temperature": 1.0},
            "ppo": {"steps": 1, "prompts_per_step": 32, "epochs": 1, "value": value},
        }
    )  # fmt: skip
    with RunFolder.open(recipe, recipe_text="") as run:
        job = prepare(recipe, run)
        opened = mib_now() - level
        train_step(job, 0)
    print(json.dumps([opened, mib_peak() - level]))


@torch.no_grad()
def passes_line(base: Path) -> str:
    """One pass over 2 x 32 rows of 72 tokens beside two over 32, which is what a shared pass can save at most."""
    model = load_trained(base).model
    ids_BT = torch.randint(8, model.config.vocab_size, (64, 72))

    def seconds(parts: int) -> float:
        began = time.perf_counter()
        for part_BT in ids_BT.chunk(parts):
            model.base_model(input_ids=part_BT, use_cache=False)
        return time.perf_counter() - began

    seconds(1)
    ratios = [seconds(2) / seconds(1) for _ in range(TURNS)]
    return f"two passes of 32 rows take {statistics.median(ratios):.2f} times one of 64 (median of {TURNS})"


if __name__ == "__main__":
    if sys.argv[1] in SHAPES:
        main(sys.argv[1])
    else:
        measure(Path(sys.argv[1]), sys.argv[2])
