"""Every stage that trains, as small as it can be with everything on that may be lost: what the reliability tests run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aligner.recipe.stage import StageRecipe
from tests.stages import ppo_world, test_dpo, test_group, test_kto, test_pretrain, test_reward, test_sft

STEPS = 5
# Lines of metrics lie across checkpoints, a step has several passes, the hold-out is looked at in between.
TRAIN: dict[str, Any] = {
    "steps": STEPS, "rows_per_device": 4, "log_every": 2, "evaluate_every": 3, "schedule": "cosine",
    "warmup_share": 0.2, "checkpoint_every": 1,
}  # fmt: skip
CLOCK = ("seconds", "train/tokens_per_second", "ppo/tokens_per_second", "grpo/tokens_per_second")

Build = Callable[[Path, str], StageRecipe]


def _pretrain(folder: Path, name: str) -> StageRecipe:
    early = test_pretrain.early_texts(folder, 3)
    return test_pretrain.recipe(folder, name, optimizer="muon", curriculum=early, **TRAIN)


def _sft(folder: Path, name: str) -> StageRecipe:
    """Three epochs of tasks that are rendered anew in each."""
    return test_sft.recipe(folder, name, **TRAIN, rows_per_step=24)


def _sft_packed(folder: Path, name: str) -> StageRecipe:
    return test_sft.recipe(folder, name, lora=test_sft.LORA, packing=True, pack_length=140, **TRAIN)


def _reward(folder: Path, name: str) -> StageRecipe:
    return test_reward.recipe(folder, name, lora=test_reward.LORA, **TRAIN)


def _dpo(folder: Path, name: str) -> StageRecipe:
    return test_dpo.recipe(folder, name, lora=test_dpo.LORA, watch=True, nll_coef=0.1, **TRAIN)


def _kto(folder: Path, name: str) -> StageRecipe:
    return test_kto.recipe(folder, name, lora=test_dpo.LORA, watch=True, **TRAIN)


def _ppo(folder: Path, name: str) -> StageRecipe:
    world = folder / "world"
    if not world.exists():
        world.mkdir()
        ppo_world.write_world(world)
    return ppo_world.recipe(world, folder / name, steps=STEPS, checkpoint_every=1, evaluate_every=2)


def _grpo(folder: Path, name: str) -> StageRecipe:
    _ppo(folder, name)  # its world
    return test_group.recipe(
        folder / "world", folder / name, "grpo", steps=STEPS, checkpoint_every=1, evaluate_every=2
    )


STAGES: dict[str, Build] = {
    "pretrain": _pretrain, "sft": _sft, "sft-packed-lora": _sft_packed, "reward": _reward, "dpo": _dpo, "kto": _kto,
    "ppo": _ppo, "grpo": _grpo,
}  # fmt: skip


def moved(recipe: StageRecipe, output: Path) -> StageRecipe:
    """The same recipe with another output."""
    return recipe.model_copy(update={"output": str(output)})


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of all a run has made, but for what the clock said: weights, tokenizer, figures, samples, results."""
    made = [path for path in sorted((run / "model").rglob("*")) if path.is_file()]
    made += [path for name in ("results.json", "value_head.safetensors") if (path := run / name).exists()]
    found = {str(path.relative_to(run)): _sha256(path.read_bytes()) for path in made}
    for name in ("metrics.jsonl", "samples.jsonl"):
        if (run / name).exists():
            found[name] = _sha256(json.dumps(timeless(run / name)).encode())
    return found


def newest_checkpoint_digests(run: Path) -> dict[str, str]:
    """SHA-256 of the tensors (weights, moments, generators) and of the state of the newest checkpoint."""
    newest = max((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    return {path.name: _sha256(path.read_bytes()) for path in newest.glob("state.*")}


def timeless(path: Path) -> list[dict[str, Any]]:
    """Rows of a jsonl file without what the clock said."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
