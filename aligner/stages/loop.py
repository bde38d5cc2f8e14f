"""Hugging Face's training loop under our rules.

The order of rows is fixed beforehand, every loss is divided by the count of the whole optimiser step, a loss that is no
number stops the run, Ctrl-C finishes the step and saves, and metrics go to the run folder.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer

from aligner.data.mix import Mix
from aligner.errors import Interrupted, Problem, TrainingError
from aligner.recipe.training import TrainSpec
from aligner.rl.finite import check_weights
from aligner.rl.ranks import Ranks
from aligner.run.folder import RunFolder
from aligner.run.progress import progress, say
from aligner.stages.callback import Look, RunCallback
from aligner.stages.order import Curriculum, FixedOrder, row_order, with_curriculum
from aligner.stages.resume import GoOn, check_processes, check_room, cut_back, newest_for_all, trained
from aligner.stages.spikes import SpikeRule
from aligner.stages.stage import Precision, optimiser_steps, resolve_precision
from aligner.stages.stop import gentle_stop

Batch = dict[str, Tensor]


@dataclass
class LoopPlan:
    """What a `StageTrainer` follows; `sums`: what it and its stage have added up since the last line of metrics.

    loss: the mean of the step that is being made, as far as it has come. spikes: judges it.
    """

    order: list[int]
    precision: Precision
    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    loss: float = 0.0
    spikes: SpikeRule = field(default_factory=SpikeRule)


def plan_of(
    train: TrainSpec,
    *,
    rows: int,
    seed: int,
    lengths: list[int] | None = None,
    curriculum: Curriculum | None = None,
    mix: Mix | None = None,
) -> LoopPlan:
    """Row order and precision; `lengths` (tokens a row) groups rows of about the same length into steps.

    The rows of the curriculum are numbered from `rows` on. `rows` are those of an epoch, which `mix` chooses.
    """
    steps = optimiser_steps(train, rows=rows)
    order = row_order(
        rows=rows,
        rows_per_step=train.rows_per_step,
        steps=steps,
        seed=seed,
        lengths=lengths,
        epoch_rows=mix.epoch if mix else None,
    )
    if curriculum:
        order = with_curriculum(order, curriculum, rows=rows, seed=seed)
    return LoopPlan(order, resolve_precision(train.precision))


class StageTrainer(Trainer):
    """A Trainer that follows a `LoopPlan`; a stage says what is summed and what is counted. Mixed in before TRL's."""

    loss_is_scaled_for_ga = True  # every loss is already divided by the whole step's count
    loss_metric = "train/loss_nats"
    plan: LoopPlan
    done = 0  # steps of the plan that a session before this one has made

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum of the loss over what counts in the batch: a scalar."""
        raise NotImplementedError

    def count(self, batch: Batch) -> Tensor:
        """How much counts in the batch: a scalar, the denominator of `loss_sum`."""
        raise NotImplementedError

    def rows_of(self, step: int) -> list[int]:
        """Numbers of the training rows that a step, from 1, reads."""
        per_step = len(self.plan.order) // self.args.max_steps
        return self.plan.order[(step - 1) * per_step : step * per_step]

    def row_name(self, row: int) -> str:
        """Where a training row is to be found; a stage that knows it sets another function."""
        return f"row {row}"

    def more_metrics(self) -> dict[str, float]:
        """What else the stage has to say since the last line of metrics; of all ranks together (see `totals`)."""
        return {}

    @property
    def ranks(self) -> Ranks:
        """The processes of this training."""
        return Ranks(self.accelerator.process_index, self.accelerator.num_processes)

    def totals(self, numbers: Sequence[float]) -> list[float]:
        """Each number, added up over the ranks; all of them have to ask."""
        return [sum(column) for column in zip(*self.ranks.together(lambda: numbers), strict=True)]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """The batch's share of the step's mean loss; DDP averages over devices, hence the factor."""
        assert not return_outputs, "stages measure their hold-out themselves"
        assert num_items_in_batch is not None, "counted by get_batch_samples"
        return self.loss_sum(model, inputs) / num_items_in_batch * self.accelerator.num_processes

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor]:
        """The micro-batches of one step and what counts in all of them, on all devices."""
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        total = torch.stack([self.count(batch) for batch in batches]).sum().to(device)
        return batches, self.accelerator.gather(total).sum().clamp(min=1)

    def compute_loss_context_manager(self) -> ExitStack:
        """Autocast around the loss, where the plan says bfloat16."""
        stack = ExitStack()
        if self.plan.precision.name == "bf16":
            stack.enter_context(torch.autocast(self.args.device.type, dtype=torch.bfloat16))
        return stack

    def training_step(
        self, model: nn.Module, inputs: Batch, num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """Forward and backward of one micro-batch; a loss that is no number ends the run."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        total = float(self.ranks.total(loss))  # one that is no number makes the sum none
        self._check_finite("loss", total)
        self.plan.loss += total / self.ranks.count
        tokens = _num_tokens(inputs)
        self.plan.sums["tokens"] += tokens
        self.plan.sums["padding"] += inputs["input_ids"].numel() - tokens
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient's norm; one that is no number ends the run before a weight has moved."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self._check_finite("gradient", float(norm))
        return norm

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            fault = f"the {what} of step {self.state.global_step + 1} is {value}"
            remedy = "lower train.learning_rate, or train in fp32"
            raise TrainingError(Problem(self.args.output_dir, fault, remedy))

    def _get_train_sampler(self, train_dataset: object = None) -> Sampler[int]:
        per_step = len(self.plan.order) // self.args.max_steps
        return FixedOrder(self.plan.order[self.done * per_step :])

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Left to `RunCallback.on_save`: what transformers writes is neither whole at once nor free of pickles."""

    def create_model_card(self, *_args: Any, **_kwargs: Any) -> None:
        """Cards are written when a run is published, not at every checkpoint."""

    def floating_point_ops(self, inputs: Batch) -> int:
        """Not counted: it walks over all parameters at every micro-batch."""
        return 0


def _num_tokens(batch: Batch) -> int:
    if "lengths" in batch:
        return int(batch["lengths"].sum())
    mask = batch.get("attention_mask")
    return int(mask.sum()) if mask is not None and mask.ndim == 2 else batch["input_ids"].numel()


def run_training(
    trainer: StageTrainer,
    run: RunFolder,
    *,
    title: str,
    look: Look | None = None,
    every: int | None = None,
    from_start: bool = False,
) -> None:
    """Train to the end of the plan, from the newest whole checkpoint if there is one.

    look, every: figures on the hold-out for metrics.jsonl, every so many steps; `from_start`: before the first, too.
    Interrupted after Ctrl-C or SIGTERM, with a checkpoint saved; TrainingError for a loss, a gradient or a weight that
    is no number.
    """
    check_processes(trainer)
    found = newest_for_all(trainer.ranks, run.checkpoints)
    trainer.done = found.step if found else 0
    cut_back(run, found)
    trainer.ranks.first(lambda: check_room(trainer, run))
    go_on = GoOn(trainer, found) if found else None
    del found  # a second copy of weights and moments
    with progress(title, trainer.args.max_steps, done=trainer.done) as bar, gentle_stop() as stop:
        callback = RunCallback(run, trainer, bar, stop, look=look, every=every, from_start=from_start)
        trainer.remove_callback(PrinterCallback)
        if go_on:
            say(f"{run.path}: goes on from step {trainer.done}")
            trainer.add_callback(go_on)
        trainer.add_callback(callback)
        if trainer.done < trainer.args.max_steps:
            trainer.train()
        elif go_on:
            go_on.after_the_last_step()
    if callback.stopped:
        step = trainer.state.global_step
        fault = f"stopped at step {step} of {trainer.args.max_steps}; a checkpoint is saved"
        raise Interrupted(Problem(str(run.path), fault, "the same command goes on from there"))
    check_weights(trained(trainer).values(), "train")  # the last step's, which no loss has seen
    # The Trainer switched it off, and a saved model should generate at full speed.
    trainer.model.config.use_cache = True
    trainer.model.eval()
