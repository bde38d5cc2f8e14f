"""What every stage shares: result, precision, length, and the one place that spells Hugging Face's arguments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal, TypeVar

import torch
from accelerate import PartialState
from transformers import TrainingArguments

from aligner.errors import Problem, RecipeError
from aligner.recipe.training import TrainSpec
from aligner.run.folder import RunFolder
from aligner.run.write import fsync_tree, remove_path, write_folder

Arguments = TypeVar("Arguments", bound=TrainingArguments)
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


@dataclass(frozen=True)
class StageResult:
    """What a stage hands on: the folder of its model (none for an evaluation) and its figures for results.json."""

    artifact: Path | None
    results: dict[str, float]


@contextmanager
def new_model(run: RunFolder) -> Iterator[Path]:
    """A folder to save the model in, which becomes `run.model_dir` in one step; a failure takes `run.base_dir` too."""
    try:
        with write_folder(run.model_dir) as folder:
            yield folder
            if run.base_dir.exists():
                fsync_tree(run.base_dir)
    except BaseException:
        remove_path(run.base_dir)
        raise


@dataclass(frozen=True)
class Precision:
    """In which numbers the forward and backward passes run, and why; weights and optimiser are always float32."""

    name: Literal["fp32", "bf16"]
    reason: str


def resolve_precision(asked: Literal["auto", "fp32", "bf16"]) -> Precision:
    """`auto`: bfloat16 autocast where the machine computes it natively, float32 elsewhere (emulation is slower)."""
    if asked != "auto":
        return Precision(asked, "the recipe says so")
    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16", "this GPU computes in bfloat16")
        return Precision("fp32", "this GPU does not compute in bfloat16")
    able = torch.cpu.get_capabilities()
    found = [name for name in ("amx_bf16", "avx512_bf16") if able.get(name)]
    if found:
        return Precision("bf16", f"this CPU computes in bfloat16 ({found[0]})")
    return Precision("fp32", "this CPU has no bfloat16 instructions")


def optimiser_steps(train: TrainSpec, *, rows: int) -> int:
    """How many optimiser steps the recipe asks for, with `rows` training rows."""
    if train.steps is not None:
        return train.steps
    assert train.epochs is not None  # the recipe checks that one of the two is given
    return max(1, round(train.epochs * rows / train.rows_per_step))


def epochs_begun(train: TrainSpec, rows: int) -> int:
    """How many times training goes to the first of `rows` rows; the last time it may stop on the way."""
    return ceil(optimiser_steps(train, rows=rows) * train.rows_per_step / rows)


def micro_batches(train: TrainSpec) -> int:
    """Forward passes a device makes for one optimiser step."""
    per_pass = train.rows_per_device or train.rows_per_step
    devices = PartialState().num_processes
    if devices > 1 and train.rows_per_device is None and train.rows_per_step % devices == 0:
        return 1
    if train.rows_per_step % (per_pass * devices):
        multiple = (train.rows_per_device or 1) * devices
        what = f"rows_per_step = {train.rows_per_step} is no multiple of {multiple}"
        fault = f"{what} (rows of a pass x {devices} devices)"
        raise RecipeError(Problem("train.rows_per_step", fault, f"take a multiple of {multiple}"))
    return train.rows_per_step // (per_pass * devices)


def rows_per_pass(train: TrainSpec) -> int:
    """Rows in one forward pass of a device."""
    return train.rows_per_step // (micro_batches(train) * PartialState().num_processes)


def training_arguments(
    train: TrainSpec, run: RunFolder, *, rows: int, seed: int, kind: type[Arguments], beta2: float = 0.999
) -> Arguments:
    """A recipe's training section in Hugging Face's words: nothing is pushed, reported or evaluated behind our back.

    kind: TrainingArguments or one of TRL's configs. Batches, precision, logging and the hold-out are the stage's own
    (see loop.py); what is said here is length, optimiser, schedule and checkpoints.
    """
    steps = optimiser_steps(train, rows=rows)
    arguments = kind(
        output_dir=str(run.checkpoints),
        seed=seed,
        data_seed=seed,
        max_steps=steps,
        per_device_train_batch_size=rows_per_pass(train),
        gradient_accumulation_steps=micro_batches(train),
        learning_rate=train.learning_rate,
        lr_scheduler_type=SCHEDULES[train.schedule],
        warmup_steps=round(train.warmup_share * steps),
        weight_decay=train.weight_decay,
        adam_beta2=beta2,
        max_grad_norm=train.max_grad_norm,
        optim="adamw_torch_fused",
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        fp16=False,
        logging_strategy="steps",
        logging_steps=train.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="steps" if train.checkpoint_every else "no",
        save_steps=train.checkpoint_every or steps,
        save_total_limit=2,
        report_to=[],
        push_to_hub=False,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
        activation_checkpointing=False,
    )
    arguments._n_gpu = min(
        1, arguments.n_gpu
    )  # several GPUs need a launcher; without one, one is used, not DataParallel
    return arguments
