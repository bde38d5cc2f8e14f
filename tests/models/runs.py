"""Run folders as the stages leave them, for the tests of the loader."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from aligner.models.heads import RewardModel, RewardStats, write_stats
from aligner.models.load import LoadedModel, load_model, load_reward_base, save_model
from aligner.recipe.model import LoraSpec, ModelSpec
from tests.models.test_adapters import IDS, stirred
from tests.tiny import tiny_model, tiny_tokenizer

LORA = LoraSpec(rank=2, alpha=4)
SEQUENCES = [[1, 4, 9, 30, 5], [1, 4, 9], [1, 4, 77, 80, 2, 2]]  # the last one ends in eos tokens


@dataclass(frozen=True)
class Runs:
    """What most tests start from; they only read it."""

    root: Path
    base: Path
    sft: Path


def write_base(run: Path, architecture: str = "llama", **changes: object) -> Path:
    """A run folder with a full model, as the pretrain stage leaves it."""
    tokenizer = tiny_tokenizer()
    loaded = LoadedModel(tiny_model(tokenizer, architecture=architecture, **changes), tokenizer, identity="")
    save_model(loaded, run / "model", base_folder=run / "base")
    return run


def write_adapter(run: Path, base: Path) -> Path:
    """A run folder with an adapter that says something, as the sft stage leaves it."""
    loaded = load_model(ModelSpec(base=str(base), lora=LORA))
    stirred(loaded.model)
    save_model(loaded, run / "model", base_folder=run / "base")
    return run


def save_reward(run: Path, spec: ModelSpec) -> torch.Tensor:
    """A reward run and the scores of its model before saving."""
    loaded = load_reward_base(spec)
    stirred(loaded.model)
    want = RewardModel(loaded.model, loaded.tokenizer).score(SEQUENCES, [1] * len(SEQUENCES))
    save_model(loaded, run / "model", base_folder=run / "base")
    write_stats(run / "model", RewardStats(0.25, 2.0, 8))
    return want


@torch.no_grad()
def logits(loaded: LoadedModel) -> torch.Tensor:
    return loaded.model.eval()(IDS).logits
