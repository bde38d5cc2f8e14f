"""PPO beside the last PPOTrainer that TRL had (1.12.0): episodes a second, memory, and the reward reached.

Both sides get the same folder: base, reward model, prompts as token ids. Each run is a process of its own, and who
begins changes every round. Nothing ends a response early, so both sides draw and learn from the same number of tokens.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from aligner.data.readers import read_source
from aligner.data.rows import Prompt
from aligner.data.templates import render_texts
from aligner.models.heads import RewardStats, write_stats
from aligner.models.load import LoadedModel, load_reward_base, save_model
from aligner.models.small import build_small
from aligner.models.tokenizer import train_tokenizer
from aligner.recipe.data import SourceSpec
from aligner.recipe.model import ArchitectureSpec, ModelSpec

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 3))
STEPS = {"1M": 10, "10M": 5, "50M": 3}  # BENCH_STEPS for all sizes; the first warms up and is not counted
EPISODES = int(os.environ.get("BENCH_EPISODES", 64))  # a step
SEEDS = [int(seed) for seed in os.environ.get("BENCH_SEEDS", "0").split(",")]
SHORTEST, LONGEST = 12, 32  # tokens of a prompt
PROMPTS = 1000
PAIRS = (("fp32", "fp32"), ("bf16", "fp32"), ("bf16", "bf16"))  # ours, TRL's
RATES = {True: 3e-4, False: 1e-4}  # of an adapter, and of whole weights
WORLD = "data/world/prompts.jsonl.gz"
SHAPES = {  # vocabulary, hidden size, layers, heads, intermediate size
    "1M": (2048, 128, 4, 4, 344),
    "10M": (4096, 320, 7, 5, 864),
    "50M": (8192, 640, 9, 10, 1728),
}


@dataclass(frozen=True)
class Job:
    """One run of one side."""

    world: str
    output: str
    lora: bool
    precision: (
        str  # fp32 | bf16: on our side autocast, on TRL's bfloat16 weights, as its bf16 flag does nothing
    )
    seed: int = 0
    steps: int = 5
    episodes: int = EPISODES
    epochs: int = 4
    new_tokens: int = 48
    temperature: float = 1.0
    kl_coef: float = 0.05
    learning_rate: float = 1e-4
    rank: int = 16


@dataclass(frozen=True)
class Outcome:
    """What a run took, and what it came to."""

    episodes_per_second: float  # of the median step
    peak_mib: float  # above the process's level after its imports
    reward: float  # mean score of the last third of the steps


def main() -> None:
    """Run the sizes and the ways of tuning that are named, or all of them, and print one table."""
    sizes = [name for name in SHAPES if name in sys.argv] or list(SHAPES)
    tunings = [name for name in ("lora", "full") if name in sys.argv] or ["lora", "full"]
    table = Table(
        "", "against TRL 1.12.0", "times as fast", f"of {ROUNDS}", "memory", "reward", "its reward", box=None
    )
    for size in sizes:
        steps = int(os.environ.get("BENCH_STEPS", STEPS[size]))
        with tempfile.TemporaryDirectory() as folder:
            make_world(Path(folder), size)
            for tuning in tunings:
                for row in compare(Path(folder), steps, lora=tuning == "lora"):
                    table.add_row(f"{size} {tuning}", *row)
    Console().print(table)


def compare(folder: Path, steps: int, *, lora: bool) -> list[list[str]]:
    """Both sides in both precisions, in turns."""
    done: dict[tuple[str, str], list[Outcome]] = {key: [] for key in product(SIDES, ("fp32", "bf16"))}
    for number, seed in product(range(ROUNDS), SEEDS):
        for side, precision in sorted(done, reverse=bool(number % 2)):
            job = Job(str(folder), "", lora, precision, seed, steps, learning_rate=RATES[lora])
            outcome = run(side, job)
            done[side, precision].append(outcome)
            print(json.dumps({"side": side, "lora": lora, **asdict(job), **asdict(outcome)}), flush=True)
    return [
        [f"{mine} against its {its}", *against(done["ours", mine], done["trl", its])] for mine, its in PAIRS
    ]


def against(ours: list[Outcome], theirs: list[Outcome]) -> list[str]:
    """A row of the table: ratios of pairs, and both rewards."""
    ratios = sorted(a.episodes_per_second / b.episodes_per_second for a, b in zip(ours, theirs, strict=True))
    memory = statistics.median(a.peak_mib / b.peak_mib for a, b in zip(ours, theirs, strict=True))
    rewards = [statistics.mean(outcome.reward for outcome in side) for side in (ours, theirs)]
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    return [
        f"{statistics.median(ratios):.2f}",
        spread,
        f"{memory:.2f}",
        *(f"{reward:.2f}" for reward in rewards),
    ]


def run(side: str, job: Job) -> Outcome:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        ordered = replace(job, output=f"{scratch}/run")
        Path(scratch, "job.json").write_text(json.dumps(asdict(ordered)))
        command = [*SIDES[side](), f"{scratch}/job.json", f"{scratch}/outcome.json"]
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"HF_HUB_OFFLINE": "1"}
        )
        return Outcome(**json.loads(Path(scratch, "outcome.json").read_text()))


SIDES: dict[str, Any] = {
    "ours": lambda: [sys.executable, "-m", "scripts.speed_ppo_ours"],
    "trl": lambda: [f"{os.environ['ALIGNER_TRL_VENV']}/bin/python", "scripts/speed_ppo_trl.py"],
}


def make_world(folder: Path, size: str) -> None:
    """Base, reward model and prompts of a size: fresh weights, the small world's prompts."""
    vocab, hidden, layers, heads, intermediate = SHAPES[size]
    rows = [
        row
        for row in read_source(SourceSpec(path=WORLD, format="prompts"), "prompt").rows
        if isinstance(row, Prompt)
    ]
    tokenizer = train_tokenizer((turn.content for row in rows for turn in row.turns), vocab_size=vocab)
    torch.manual_seed(0)
    spec = ArchitectureSpec(
        hidden_size=hidden, layers=layers, heads=heads, intermediate_size=intermediate, context_length=128
    )
    model = build_small(spec, tokenizer)
    model.resize_token_embeddings(vocab)
    save_model(LoadedModel(model, tokenizer, "base"), folder / "base", base_folder=folder / "unused")
    reward = load_reward_base(ModelSpec(base=str(folder / "base")))
    make_judge(reward.model, vocab)
    save_model(reward, folder / "reward", base_folder=folder / "unused")
    write_stats(folder / "reward", RewardStats(0.0, 1.0, 256))
    write_prompts(folder, rows, tokenizer)


@torch.no_grad()
def make_judge(model: torch.nn.Module, vocab: int) -> None:
    """Fresh weights whose scores of random rows have mean 0 and standard deviation 1."""
    ids = torch.randint(8, vocab, (256, SHORTEST + 48))
    seen = model.base_model(input_ids=ids).last_hidden_state[:, -1]
    weight = torch.randn_like(model.score.weight[0])
    mean = seen.mean(dim=0)
    weight -= mean * (weight @ mean) / (mean @ mean)
    model.score.weight[0] = weight / (seen @ weight).std()


def write_prompts(folder: Path, rows: list[Prompt], tokenizer: Any) -> None:
    """The prompts of the right lengths: as rows for our reader, and as ids for TRL."""
    texts = render_texts(
        [row.turns for row in rows], tokenizer, ask=True, origins=[row.origin for row in rows]
    )
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    fit = [i for i, row in enumerate(ids) if SHORTEST <= len(row) <= LONGEST][:PROMPTS]
    with (folder / "prompts.jsonl").open("w") as file:
        for i in fit:
            file.write(json.dumps({"id": str(i), "prompt": rows[i].turns[-1].content}) + "\n")
    (folder / "prompts.json").write_text(json.dumps([ids[i] for i in fit]))


if __name__ == "__main__":
    main()
