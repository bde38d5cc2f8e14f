"""The small world of the PPO stage's tests: a base, reward models of both kinds, prompts, a recipe, and a way to run it."""

import json

import torch

import aligner.stages.ppo
from aligner.models.heads import RewardStats, write_stats
from aligner.models.load import LoadedModel, load_reward_base, save_model
from aligner.models.scoring import Scoring
from aligner.recipe.model import ModelSpec
from aligner.recipe.ppo import PpoRecipe
from aligner.run.folder import RunFolder
from aligner.stages.ppo import train_ppo
from tests.tiny import tiny_model, tiny_tokenizer

WORDS = ("cat", "dog", "house", "ball", "town", "story", "apple", "pear")


def write_world(folder):
    """Fill a folder with a base model, reward models of both kinds, and prompts with gold."""
    tokenizer = tiny_tokenizer()
    base = LoadedModel(tiny_model(tokenizer), tokenizer, "tiny")
    save_model(base, folder / "base", base_folder=folder / "unused")
    torch.manual_seed(1)
    reward = load_reward_base(ModelSpec(base=str(folder / "base")))
    save_model(reward, folder / "reward", base_folder=folder / "unused")
    write_stats(folder / "reward", RewardStats(0.1, 0.5, 10))
    judge = LoadedModel(tiny_model(tokenizer, seed=1), tokenizer, "judge")
    save_model(judge, folder / "likelihood", base_folder=folder / "unused")
    write_stats(folder / "likelihood", RewardStats(-5.0, 2.0, 10, Scoring("likelihood", 0.1)))
    gold = {"kind": "answerable", "answers": ["red"]}
    rows = [
        {"id": str(i), "family": "f", "prompt": f"What is the color of the {w}?", "gold": gold}
        for i, w in enumerate(WORDS)
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    held = [{"id": f"h{w}", "family": "g", "prompt": f"Is the {w} old?", "gold": gold} for w in WORDS[:4]]
    (folder / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    return folder


def recipe(world, output, *, reward="tests.rl.planted:vowels", lora=None, **ppo):
    source = {"function": reward} if ":" in reward else {"model": reward}
    settings = {
        "steps": 6, "prompts_per_step": 8, "epochs": 2, "minibatches": 2, "learning_rate": 3e-3, "kl_coef": 0.01,
        "missing_eos": {"mode": "subtract", "value": 0.0}, "evaluate_every": 3,
    }  # fmt: skip
    return PpoRecipe.model_validate(
        {
            "stage": "ppo",
            "seed": 3,
            "output": str(output),
            "model": {"base": str(world / "base")} | ({"lora": lora} if lora else {}),
            "reward": [source],
            "data": {
                "train": [{"path": str(world / "prompts.jsonl"), "format": "prompts"}],
                "holdout": [{"path": str(world / "held.jsonl"), "format": "prompts"}],
            },
            "sampling": {"max_new_tokens": 8, "temperature": 1.0},
            "ppo": settings | ppo,
        }
    )


def run_it(plan):
    with RunFolder.open(plan, recipe_text="stage: ppo\n") as run:
        return train_ppo(plan, run)


def lines(folder, name):
    """Rows of a jsonl file but for what the clock said."""
    rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "ppo/tokens_per_second")} for row in rows]


def assert_same_run(a, b, weights="model/model.safetensors"):
    for name in (weights, "value_head.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert lines(a, name) == lines(b, name)


def interrupt_in(monkeypatch, step, act):
    real = aligner.stages.ppo.train_step

    def acting(job, at):
        if at == step:
            act()
        return real(job, at)

    monkeypatch.setattr(aligner.stages.ppo, "train_step", acting)
