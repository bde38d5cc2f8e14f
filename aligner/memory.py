"""How much memory a stage takes at its fullest: what its weights need, and what its largest pass keeps.

What a pass keeps for its gradient is asked of autograd: a model of random weights reads one row and two. All figures
are bytes above what the process holds once its libraries are imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from aligner.errors import ModelError, Problem
from aligner.models.adapters import trainable_parameters
from aligner.models.wrapped import output_head, unwrapped
from aligner.recipe.model import ModelSpec
from aligner.recipe.plan import PlanRow
from aligner.recipe.preference import PreferenceRecipe
from aligner.recipe.stages import PretrainRecipe, RewardRecipe, SftRecipe
from aligner.run.machine import Room
from aligner.stages.losses import IGNORED, next_token_nats
from aligner.stages.optimizer import hidden_matrices
from aligner.stages.order import Lines
from aligner.stages.room import COPIES
from aligner.stages.stage import Precision, resolve_precision
from aligner.start import Start

FLOAT_BYTES = 4
LAYER_FLOATS = 22  # kept per token, layer and hidden unit where no model is built to be asked (of a Llama)
# What a pass takes of a CPU's heap over what it holds. torch asks for aligned blocks, and glibc (2.36) fits none into a
# hole of just its size, so much of what is freed on the way is lost to the pass, most where PEFT adds up outputs.
# Measured by scripts/memory_estimates.py at 10 M parameters; one run is up to a fifth off another.
Layers = Literal["plain", "peft", "fast"]
HEAP: dict[Layers, float] = {"plain": 1.25, "peft": 1.65, "fast": 1.25}
# Of a weight of a quantised layer, with its scales: a float per row in 8 bit; a byte per 64 in 4 bit, and a float per
# 16,384 (bitsandbytes' double quantisation).
QUANTISED_BYTES = {"8bit": 1.0, "4bit": 0.5 + 1 / 64 + 4 / 16384}


class Kept(NamedTuple):
    """What a forward pass keeps for the backward one: of each row, and however many there are (rounded weights)."""

    fixed: int
    per_row: int

    def of(self, rows: int) -> int:
        """Bytes of a pass over so many rows."""
        return self.fixed + rows * self.per_row


class Pass(NamedTuple):
    """The largest forward and backward pass: rows, tokens of each, and how many of those a token is predicted from."""

    rows: int
    tokens: int
    scored: int

    def __str__(self) -> str:
        return f"{self.rows:,} x {self.tokens:,} tokens"


TrainedRecipe = PretrainRecipe | SftRecipe | RewardRecipe | PreferenceRecipe


@dataclass(frozen=True)
class Memory:
    """What a stage holds: all the time, and beside that at its fullest."""

    weights: int
    moments: int  # of the optimiser
    work: int
    busiest: str  # what `work` is for
    guessed: int = 0  # weights of other models, each taken to be as large as this one

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.moments + self.work + self.guessed

    def row(self, room: Room, stage: str) -> PlanRow:
        """The plan's row, which says whether it fits what is free; ModelError where no smaller pass would make it fit.

        That is where weights and moments alone are more than there is, whatever other models take.
        """
        if self.weights + self.moments > room.whole:
            what = f"weights and optimiser alone take {gib(self.weights + self.moments)}"
            fault = f"{what}, and {room.of} has {gib(room.whole)}"
            remedy = "train an adapter (model.lora), quantise what is frozen, or start from a smaller model"
            raise ModelError(Problem(f"{stage}: memory", fault, remedy))
        parts = {
            "weights": self.weights,
            "reward models, if as large": self.guessed,
            "optimiser": self.moments,
            self.busiest: self.work,
        }
        why = ", ".join(f"{name} {gib(size)}" for name, size in parts.items() if size)
        if self.total > room.free:
            remedy = ": lower rows_per_device" if self.busiest.startswith("a pass") else ""
            why += f"; it does not fit the {gib(room.free)} that are free{remedy}"
        return PlanRow("memory", gib(self.total), why)


def gib(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / 2**30:.2f} GiB"


def weight_bytes(start: Start, spec: ModelSpec | None) -> int:
    """The weights of a model as it is loaded and trained, its adapter with it."""
    whole = FLOAT_BYTES * start.parameters
    if spec is None or not start.trains_adapter(spec):
        return whole
    rounded = 0.0
    if spec.quantize != "none":
        rounded = linear_weights(start) * (FLOAT_BYTES - QUANTISED_BYTES[spec.quantize])
    return int(whole - rounded) + FLOAT_BYTES * start.adapter_parameters(spec)


def linear_weights(start: Start) -> int:
    """Weights of the linear layers but the head: those that are quantised, or adapted."""
    model = start.shape(None)
    head = output_head(model)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    return sum(linear.weight.numel() for linear in linears)


def moment_bytes(weights: Iterable[nn.Parameter], *, optimizer: str = "adamw", model: nn.Module) -> int:
    """Two moments of each trained weight; one, where Muon trains it."""
    trained = sum(weight.numel() for weight in weights)
    muon = sum(weight.numel() for weight in hidden_matrices(model)) if optimizer == "muon" else 0
    return FLOAT_BYTES * (2 * trained - muon)


def kept_by(loss: Callable[[int], Tensor], model: nn.Module) -> Kept:
    """What autograd keeps of `loss`, a function of the number of rows; the model's own weights are not counted."""
    own = {weight.untyped_storage().data_ptr() for weight in [*model.parameters(), *model.buffers()]}
    one, two = (_saved(loss, rows, own) for rows in (1, 2))
    return Kept(max(2 * one - two, 0), two - one)


def _saved(loss: Callable[[int], Tensor], rows: int, own: set[int]) -> int:
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        graph = loss(rows)  # held, so that no two tensors have had one address
    del graph
    return sum(seen.values())


def training_kept(
    start: Start, model: nn.Module | None, one: Pass, precision: Precision, *, head: bool
) -> Kept:
    """What a pass of a Trainer's stage keeps; of the hidden states alone where a score `head` reads them."""
    scored = 0 if head else one.scored
    if model is None:
        floats = one.tokens * start.layers * start.hidden_size * LAYER_FLOATS + scored * start.vocab_size
        return Kept(0, FLOAT_BYTES * floats)
    trunk, device = unwrapped(model).base_model, next(model.parameters()).device

    def loss(rows: int) -> Tensor:
        ids_BT = torch.zeros((rows, one.tokens), dtype=torch.long, device=device)
        targets_BT = torch.full_like(ids_BT, IGNORED)
        targets_BT[:, one.tokens - scored :] = 0
        with torch.autocast(device.type, torch.bfloat16, enabled=precision.name == "bf16"):
            if head:
                hidden_BTD: Tensor = trunk(input_ids=ids_BT, use_cache=False).last_hidden_state
                return hidden_BTD.sum()
            return next_token_nats(model, output_head(model), {"input_ids": ids_BT, "targets": targets_BT})

    return kept_by(loss, model)


def in_memory(kept: int, layers: Layers) -> int:
    """What a pass takes that keeps so much: on a GPU that much, whose blocks torch fits itself."""
    return kept if torch.cuda.is_available() else int(HEAP[layers] * kept)


def work_of(kept: int, *, logits: int, gradients: int, passes: int) -> int:
    """The most that a step holds beside weights and moments.

    A backward pass begins with all that was kept and `logits` of gradients of logits, and ends with all `gradients` of
    weights; those of the passes before are there all along.
    """
    largest = kept + logits
    return largest + gradients if passes > 1 else max(largest, gradients)


def trained_model(recipe: TrainedRecipe) -> ModelSpec | None:
    """What a stage starts from; None where that is fresh weights."""
    return None if isinstance(recipe, PretrainRecipe) else recipe.model


def largest_pass(batches: Sequence[Lines], lengths: Sequence[int], *, scored: float) -> Pass:
    """The forward pass that is widest with its padding, a share of its tokens being scored."""
    shapes = ((len(lines), max(sum(lengths[row] for row in line) for line in lines)) for lines in batches)
    rows, tokens = max(shapes, key=prod)
    return Pass(rows, tokens, max(round(scored * tokens), 1))


def kept_in(recipe: TrainedRecipe) -> Precision:
    """In which numbers a pass keeps what it keeps: on a CPU bitsandbytes computes in float32, under autocast, too."""
    spec = trained_model(recipe)
    if spec and spec.quantize != "none" and not torch.cuda.is_available():
        return Precision("fp32", "")
    return resolve_precision(recipe.train.precision)


def training_memory(recipe: TrainedRecipe, start: Start, one: Pass, model: PreTrainedModel | None) -> Memory:
    """What a Trainer's stage holds, whose largest pass is `one`; `model`: one of this shape with random weights."""
    train, spec = recipe.train, trained_model(recipe)
    head = isinstance(recipe, RewardRecipe) and recipe.score == "head"
    shape = start.shape(spec)
    learnt = trainable_parameters(shape)
    gradients = FLOAT_BYTES * sum(weight.numel() for weight in learnt)
    adapted = start.adapted(model, spec) if model is not None else None
    kept = training_kept(start, adapted, one, kept_in(recipe), head=head).of(one.rows)
    kept = in_memory(kept, "peft" if spec and start.trains_adapter(spec) else "plain")
    logits = 0 if head else 2 * FLOAT_BYTES * one.rows * one.scored * start.vocab_size
    passes = train.rows_per_step // (train.rows_per_device or train.rows_per_step)
    work = {f"a pass over {one}": work_of(kept, logits=logits, gradients=gradients, passes=passes)}
    if train.checkpoint_every and not torch.cuda.is_available():
        work["a checkpoint"] = COPIES * gradients
    if isinstance(recipe, RewardRecipe):
        work["the saved model, read back"] = FLOAT_BYTES * start.parameters
    busiest = max(work, key=work.__getitem__)
    moments = moment_bytes(learnt, optimizer=train.optimizer, model=shape)
    return Memory(weight_bytes(start, spec), moments, work[busiest], busiest)
