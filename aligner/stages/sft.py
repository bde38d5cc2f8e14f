"""Supervised fine-tuning: conversations, the loss on the answers and their end token only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from aligner.data.build import build_conversations
from aligner.data.mix import Mix
from aligner.data.token_rows import lengths_of
from aligner.data.tokens import TokenRow
from aligner.errors import DataError, Problem
from aligner.models.attention import check_isolation
from aligner.models.load import load_model, save_model
from aligner.models.wrapped import output_head
from aligner.recipe.plan import PlanRow
from aligner.recipe.stages import SftRecipe
from aligner.recipe.training import TrainSpec
from aligner.run.folder import RunFolder
from aligner.run.home import rows_home
from aligner.run.seed import seed_everything
from aligner.stages.batches import AnswerCollator, Batch, NumberCollator, PackCollator, labelled, numbers_of
from aligner.stages.loop import LoopPlan, StageTrainer, run_training
from aligner.stages.losses import IGNORED, next_token_nats
from aligner.stages.optimizer import optimizer_choice
from aligner.stages.order import Lines, RowBatches, pack_order, padding_share, row_order
from aligner.stages.sources import row_name, tell_sources
from aligner.stages.stage import (
    StageResult,
    epochs_begun,
    new_model,
    optimiser_steps,
    resolve_precision,
    rows_per_pass,
    training_arguments,
)

BETA2 = 0.999


class AnswerTrainer(StageTrainer, SFTTrainer):
    """TRL's trainer with the output layer run on labelled positions alone, on any device.

    TRL 1.16 scores every position where there is no Triton (trl/trainer/utils.py, add_fused_lm_head). Same loss.
    `batches`: what it is going to read, pass by pass; `rows_read`: the rows of all; `padding_share`: of all.
    """

    batches: Sequence[Lines]
    rows_read: list[int]
    padding_share: float

    def rows_of(self, step: int) -> list[int]:
        """Those of the step's batches: where rows are packed, an entry of the data set is a batch."""
        passes = len(self.batches) // self.args.max_steps
        return rows_read(self.batches[(step - 1) * passes : step * passes])

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """Nats, summed over the labelled tokens."""
        return next_token_nats(model, output_head(model), batch)

    def count(self, batch: Batch) -> Tensor:
        """Labelled tokens."""
        return (batch["targets"] != IGNORED).sum()

    def more_metrics(self) -> dict[str, float]:
        """The share of padding."""
        read, padding = self.totals([self.plan.sums["tokens"], self.plan.sums["padding"]])
        return {"train/padding_share": padding / max(read + padding, 1)}


def train_sft(recipe: SftRecipe, run: RunFolder) -> StageResult:
    """Load, tokenise, train (LoRA or all weights), measure the answers held out, save."""
    seed_everything(recipe.seed)
    loaded = load_model(recipe.model)
    if pack_length := pack_length_of(recipe):
        check_isolation(loaded.model, pack_length)
    begun = partial(epochs_begun, recipe.train)
    data = build_conversations(
        recipe.data, loaded.tokenizer, seed=recipe.seed, epochs=begun, keep=rows_home()
    )
    run.start(parents={"base": loaded.identity}, data=data.report.to_json(), seed=recipe.seed)
    if not data.train:
        raise DataError(
            Problem("data.train", "there are no rows to train on", "look at the sources with `aligner show`")
        )
    trainer = answer_trainer(
        loaded.model,
        loaded.tokenizer,
        data.train,
        recipe.train,
        run,
        seed=recipe.seed,
        mix=data.mix,
        pack_length=pack_length,
    )
    tell_sources(run, data, trainer.rows_read)
    trainer.row_name = partial(row_name, data)
    collate = AnswerCollator(loaded.tokenizer.pad_token_id)
    per_pass = recipe.train.rows_per_device or recipe.train.rows_per_step

    def holdout() -> dict[str, float]:
        if not data.holdout:
            return {}
        return {"holdout/loss_nats": answer_loss(loaded.model, data.holdout, collate, rows_per_pass=per_pass)}

    before = holdout()
    run_training(trainer, run, title="sft", look=holdout, every=recipe.train.evaluate_every)
    if not run.leads:
        return StageResult(None, {})
    after = holdout()
    if after:
        run.metrics.log(trainer.state.global_step, after)
    with new_model(run) as folder:
        save_model(loaded, folder, base_folder=run.base_dir)
    results = _results(before, after) | {"sft/padding_share": trainer.padding_share}
    return StageResult(run.model_dir, results)


def _results(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    if not after:
        return {}
    return {
        "sft/holdout_loss_nats": after["holdout/loss_nats"],
        "sft/base_holdout_loss_nats": before["holdout/loss_nats"],
    }


def answer_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[TokenRow],
    train: TrainSpec,
    run: RunFolder,
    *,
    seed: int,
    mix: Mix | None = None,
    pack_length: int | None = None,
) -> AnswerTrainer:
    """The trainer for these rows, ready to run: nothing is tokenised, cut or filtered again.

    `mix`: which of them an epoch reads; all when left out. With `pack_length` rows are packed to lines of so many
    tokens. A step's loss is the mean over its learnt tokens either way, so a step on packed rows is the step on the
    same rows unpacked.
    """
    per_epoch = mix.rows_per_epoch if mix else len(rows)
    args = training_arguments(train, run, rows=per_epoch, seed=seed, kind=SFTConfig, beta2=BETA2)
    args.max_length = None
    args.dataset_kwargs = {"skip_prepare_dataset": True}
    lengths = lengths_of(rows)
    batches = batches_of(train, lengths, pack_length, seed=seed, mix=mix)
    pad_id = tokenizer.pad_token_id
    collate: NumberCollator | PackCollator = NumberCollator(
        lambda number: labelled(rows[number]), AnswerCollator(pad_id)
    )
    entries, order = len(rows), rows_read(batches)
    if pack_length:
        args.per_device_train_batch_size = 1  # an entry of the data set is a whole batch
        collate = PackCollator(rows, batches, pad_id)
        entries, order = len(batches), list(range(len(batches)))
    trainer = AnswerTrainer(
        model=model,
        args=args,
        data_collator=collate,
        train_dataset=numbers_of(entries),
        processing_class=tokenizer,
        optimizer_cls_and_kwargs=optimizer_choice(train, beta2=BETA2),
    )
    trainer.plan = LoopPlan(order, resolve_precision(train.precision))
    trainer.batches, trainer.rows_read = batches, rows_read(batches)
    trainer.padding_share = padding_share(batches, lengths)
    return trainer


def pack_length_of(recipe: SftRecipe) -> int | None:
    """Tokens of a line of packed rows; None where rows are not packed."""
    return (recipe.train.pack_length or recipe.data.max_length) if recipe.train.packing else None


def batches_of(
    train: TrainSpec, lengths: Sequence[int], pack_length: int | None, *, seed: int, mix: Mix | None = None
) -> Sequence[Lines]:
    """The row numbers of every forward pass in order: a row a line, or, with `pack_length`, a pack."""
    rows, epoch_rows = (mix.rows_per_epoch, mix.epoch) if mix else (len(lengths), None)
    steps, per_pass = optimiser_steps(train, rows=rows), rows_per_pass(train)
    if pack_length:
        return pack_order(
            lengths,
            room=pack_length,
            rows=rows,
            rows_per_pass=per_pass,
            passes=steps * train.rows_per_step // per_pass,
            seed=seed,
            epoch_rows=epoch_rows,
        )
    order = row_order(
        rows=rows,
        rows_per_step=train.rows_per_step,
        steps=steps,
        seed=seed,
        lengths=lengths,
        epoch_rows=epoch_rows,
    )
    return RowBatches(order, per_pass)


def rows_read(batches: Sequence[Lines]) -> list[int]:
    """The rows of all batches in order."""
    return [row for batch in batches for line in batch for row in line]


def padding_row(
    recipe: SftRecipe,
    batches: Sequence[Lines],
    lengths: Sequence[int],
    build: Callable[[], PreTrainedModel | None],
) -> PlanRow:
    """How rows of these lengths would share batches; ModelError where they are to be packed and the model cannot."""
    why = "share of the batches; rows of about one length in each"
    if pack_length := pack_length_of(recipe):
        why = f"share of the batches; rows packed to lines of {pack_length} tokens"
        if (model := build()) is not None:
            check_isolation(model, pack_length)
    return PlanRow("padding", f"{padding_share(batches, lengths):.1%}", why)


@torch.no_grad()
def answer_loss(
    model: nn.Module, rows: Sequence[TokenRow], collate: AnswerCollator, *, rows_per_pass: int
) -> float:
    """Mean cross-entropy per supervised token over all rows together, in nats, in float32."""
    model.eval()
    device = next(model.parameters()).device
    head = output_head(model)
    by_length = sorted(range(len(rows)), key=lengths_of(rows).__getitem__)
    nats = torch.zeros((), dtype=torch.float64)
    count = 0
    for start in range(0, len(by_length), rows_per_pass):
        batch = collate([labelled(rows[row]) for row in by_length[start : start + rows_per_pass]])
        count += int((batch["targets"] != IGNORED).sum())
        nats += (
            next_token_nats(model, head, {name: tensor.to(device) for name, tensor in batch.items()})
            .double()
            .cpu()
        )
    return float(nats / max(count, 1))
