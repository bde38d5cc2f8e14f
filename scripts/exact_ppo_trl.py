"""TRL's side of `scripts/bench ppo-exact`, in TRL 1.12.0's own environment: its numbers for given rollouts.

What PPOTrainer.train computes inline (masks, rewards, advantages, losses) is run from its own source, cut at lines
that it has once each; what is a function is called. It runs where `aligner` is not installed.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer
from trl.trainer.utils import selective_log_softmax

SOURCE = inspect.getsource(PPOTrainer.train)
REWARDS = ("response_idxs = torch.arange(", "advantages = torch.masked_fill(advantages, padding_mask, 0)\n")
LOSSES = ("vpredclipped = torch.clamp(", "loss = pg_loss + args.vf_coef * vf_loss\n")


def main(world: Path) -> None:
    """Read the cases, compute, write."""
    torch.manual_seed(0)
    cases = torch.load(world / "cases.pt")
    found = {name: advantages_and_losses(case) for name, case in cases.items()}
    logits, ids = torch.load(world / "logits.pt")
    found["logprobs"] = {"logprobs": selective_log_softmax(logits, ids)}
    found["update"] = one_update(world)
    torch.save(found, world / "theirs.pt")


def source_between(marks: tuple[str, str]) -> str:
    """TRL's own lines from the first mark to the end of the second."""
    first, last = marks
    assert SOURCE.count(first) == 1 and SOURCE.count(last) == 1, "not the source of TRL 1.12.0"
    start = SOURCE.rindex("\n", 0, SOURCE.index(first)) + 1
    return dedent(SOURCE[start : SOURCE.index(last) + len(last)])


def advantages_and_losses(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A rollout's rewards and advantages, and the losses of given new log-probabilities and values."""
    names = vars(ppo_trainer) | {key: value.clone() for key, value in case.items() if torch.is_tensor(value)}
    names["args"] = SimpleNamespace(**case["settings"])
    names["empty_cache"] = lambda: None
    exec(source_between(REWARDS), names)
    new, values = (case[name].clone().requires_grad_() for name in ("new_logprobs", "new_values"))
    names |= {
        "new_logprobs": torch.masked_fill(new, names["padding_mask"], ppo_trainer.INVALID_LOGPROB),
        "vpred": torch.masked_fill(values, names["padding_mask_p1"], 0),
        "mb_values": names["values"], "mb_return": names["returns"], "mb_logprobs": names["logprobs"],
        "mb_advantage": names["advantages"], "micro_batch_inds": torch.arange(len(new)),
    }  # fmt: skip
    exec(source_between(LOSSES), names)
    names["loss"].backward()
    kept = ("rewards", "advantages", "returns", "kl", "pg_loss", "vf_loss", "padding_mask", "padding_mask_p1")
    return {name: names[name].detach() for name in kept} | {"dlogprobs": new.grad, "dvalues": values.grad}


def one_update(world: Path) -> dict[str, Any]:
    """PPOTrainer itself for one rollout batch, by plain gradient descent: what it drew, and its weights afterwards."""
    settings = torch.load(world / "settings.pt")
    tokenizer = AutoTokenizer.from_pretrained(world / "base", padding_side="left")
    policy = AutoModelForCausalLM.from_pretrained(world / "base")
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(world / "reward", num_labels=1) for _ in range(2)
    )
    prompts = settings["prompts"]
    args = PPOConfig(
        output_dir=str(world / "trl"), total_episodes=len(prompts), per_device_train_batch_size=len(prompts),
        gradient_accumulation_steps=1, local_rollout_forward_batch_size=len(prompts), num_ppo_epochs=settings["epochs"],
        response_length=settings["new_tokens"], temperature=settings["temperature"], kl_coef=settings["kl_coef"],
        num_sample_generations=0, save_strategy="no", report_to=[], bf16=False, gradient_checkpointing=False,
        use_cpu=True,
    )  # fmt: skip
    optimizer = torch.optim.SGD([*policy.parameters(), *value.parameters()], lr=settings["learning_rate"])
    drawn: list[torch.Tensor] = []
    generate = ppo_trainer.batch_generation

    def recorded(*arguments: Any) -> Any:
        sequences, logits = generate(*arguments)
        drawn.append(sequences)
        return sequences, logits

    ppo_trainer.batch_generation = recorded
    PPOTrainer(
        args=args, processing_class=tokenizer, model=policy, ref_model=None, reward_model=reward, value_model=value,
        train_dataset=Dataset.from_list([{"input_ids": row} for row in prompts]),
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
    ).train()  # fmt: skip
    return {"sequences": drawn[0], "policy": policy.state_dict(), "value": value.state_dict()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
