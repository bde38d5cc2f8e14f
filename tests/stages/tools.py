"""What the stage tests share: tiny recipes on real files, a run folder, a Ctrl-C at a given step."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from aligner.models.load import LoadedModel, save_model
from aligner.recipe.stage import StageRecipe
from aligner.run.folder import RunFolder
from aligner.stages.loop import StageTrainer
from tests.tiny import tiny_model

TRAIN = {"steps": 6, "rows_per_step": 8, "learning_rate": 3e-3, "precision": "fp32", "log_every": 1}


def open_run(recipe: StageRecipe) -> RunFolder:
    """The recipe's run folder, with no parents or data noted yet."""
    return RunFolder.open(recipe, recipe_text="", fresh=False)


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def save_tiny(folder: Path, tokenizer: PreTrainedTokenizerFast, *, tie_embeddings: bool = True) -> Path:
    """A tiny base on disk."""
    model = tiny_model(tokenizer, tie_embeddings=tie_embeddings)
    save_model(
        LoadedModel(model=model, tokenizer=tokenizer, identity=""), folder, base_folder=folder / "base"
    )
    return folder


def interrupt_when_logged(run: RunFolder, step: int) -> None:
    """Ctrl-C arrives as this step is logged: the loop finishes the step after it."""
    log = run.metrics.log

    def log_and_interrupt(at: int, values: Mapping[str, float]) -> None:
        log(at, values)
        if at == step and "train/grad_norm" in values:
            os.kill(os.getpid(), signal.SIGINT)

    run.metrics.log = log_and_interrupt  # type: ignore[method-assign]


class GradientCatcher(TrainerCallback):
    """Keeps the gradients of the first optimiser step, as they are before clipping takes place in the metric only."""

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: PreTrainedModel, **_: Any
    ) -> None:
        if not self.gradients:
            named = ((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
            self.gradients = {name: grad.clone() for name, grad in named}


def first_gradients(trainer: StageTrainer) -> dict[str, Tensor]:
    """Attach a catcher; read the result after training."""
    catcher = GradientCatcher()
    trainer.add_callback(catcher)
    trainer.train()
    return catcher.gradients


def assert_same_gradients(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Equal to 1e-6 of the largest gradient."""
    assert one.keys() == other.keys()
    assert one
    scale = max(float(grad.abs().max()) for grad in one.values())
    worst = max(float((one[name] - other[name]).abs().max()) for name in one)
    assert worst <= 1e-6 * scale, (worst, scale)


def weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a saved model."""
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    assert files
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def assert_bit_identical(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """The same names and the very same numbers."""
    assert one.keys() == other.keys()
    assert one
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different
