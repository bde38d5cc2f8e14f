"""TRL's side of `scripts/bench ppo`: one run of the PPOTrainer of TRL 1.12.0, in that version's own environment.

Its four models as its documentation has them: the reward model's weights start the value model, an adapter's reference
is the policy without it. It runs where `aligner` is not installed.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from speed_memory import mib_now, mib_peak
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **_) -> None:
        """One more."""
        self.ends.append(time.perf_counter())


def main(order: Path, outcome: Path) -> None:
    """Read the job, train, write what came of it."""
    job, level = json.loads(order.read_text()), mib_now()
    clock = Clock()
    ready = trainer(job, clock)
    ready.train()
    seconds = [after - before for before, after in pairwise(clock.ends)]
    scores = [row["objective/scores"] for row in ready.state.log_history if "objective/scores" in row]
    outcome.write_text(
        json.dumps(
            {
                "episodes_per_second": job["episodes"] / statistics.median(seconds),
                "peak_mib": mib_peak() - level,
                "reward": statistics.mean(scores[-max(1, len(scores) // 3) :]),
            }
        )
    )


def trainer(job: dict, clock: Clock) -> PPOTrainer:
    """Everything as its documentation has it, on the job's models and numbers."""
    world, dtype = Path(job["world"]), torch.bfloat16 if job["precision"] == "bf16" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(world / "base", padding_side="left")
    rows = json.loads((world / "prompts.json").read_text())
    args = PPOConfig(
        output_dir=job["output"], total_episodes=job["steps"] * job["episodes"], seed=job["seed"],
        per_device_train_batch_size=job["episodes"], gradient_accumulation_steps=1,
        local_rollout_forward_batch_size=job["episodes"], num_ppo_epochs=job["epochs"],
        response_length=job["new_tokens"], temperature=job["temperature"], kl_coef=job["kl_coef"],
        learning_rate=job["learning_rate"], adam_epsilon=1e-5, stop_token="eos", num_sample_generations=0,
        save_strategy="no", report_to=[], bf16=False, gradient_checkpointing=False, use_cpu=True,
    )  # fmt: skip
    peft = LoraConfig(
        r=job["rank"], lora_alpha=2 * job["rank"], target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return PPOTrainer(
        args=args, processing_class=tokenizer, callbacks=[clock], peft_config=peft if job["lora"] else None,
        model=AutoModelForCausalLM.from_pretrained(world / "base", dtype=dtype), ref_model=None,
        reward_model=judge(world, dtype), value_model=judge(world, dtype),
        train_dataset=Dataset.from_list([{"input_ids": row} for row in rows]),
    )  # fmt: skip


def judge(world: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The reward model's weights."""
    return AutoModelForSequenceClassification.from_pretrained(world / "reward", dtype=dtype, num_labels=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
