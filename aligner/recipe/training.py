"""How long, how fast, in which numbers."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec


class TrainSpec(Spec):
    """Length, batch, optimiser and schedule of a supervised stage."""

    epochs: float | None = Field(None, gt=0, description="passes over the training rows; or give steps")
    steps: int | None = Field(None, gt=0, description="optimiser steps; or give epochs")
    rows_per_step: int = Field(32, gt=0, description="rows per optimiser step, all devices together")
    rows_per_device: int | None = Field(
        None, gt=0, description="rows in one forward pass; rows_per_step when left out"
    )
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_share: float = Field(
        0.05, ge=0, lt=1, description="share of the steps with a rising learning rate"
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: matrices by Muon, the rest by AdamW"
    )
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="bf16 = autocast; weights stay fp32"
    )
    log_every: int = Field(10, gt=0, description="steps between two lines of metrics.jsonl")
    evaluate_every: int | None = Field(
        None, gt=0, description="steps between two looks at the hold-out; at the end only when left out"
    )
    checkpoint_every: int | None = Field(
        None, gt=0, description="steps between checkpoints; one at an interrupt only when left out"
    )

    @model_validator(mode="after")
    def _length_and_batch(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        per_device = self.rows_per_device or self.rows_per_step
        if self.rows_per_step % per_device:
            low = self.rows_per_step // per_device * per_device
            fits = " or ".join(str(n) for n in (low, low + per_device) if n)
            raise ValueError(
                f"rows_per_step = {self.rows_per_step} must be a multiple of "
                f"rows_per_device = {per_device}; nearest: {fits}"
            )
        return self


class SftTrainSpec(TrainSpec):
    """The training of an `sft` stage: its rows may be packed."""

    packing: bool = Field(
        False,
        description="several rows share a line, blind to each other; else rows of about one length are padded",
    )
    pack_length: int | None = Field(
        None, gt=1, description="tokens of such a line; data.max_length when left out"
    )

    @model_validator(mode="after")
    def _length_of_packs(self) -> Self:
        if self.pack_length is not None and not self.packing:
            raise ValueError(
                f"pack_length = {self.pack_length} is for packing: true alone; leave it out, or set that"
            )
        return self


class SamplingSpec(Spec):
    """How responses are drawn. Nothing is inherited from a model's own generation config."""

    max_new_tokens: int = Field(48, gt=0)
    temperature: float = Field(1.0, gt=0)
