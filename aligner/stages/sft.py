"""Supervised fine-tuning: conversations, the loss on the answers and their end token only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from aligner.data.build import build_conversations
from aligner.data.mix import Mix
from aligner.data.tokens import TokenRow
from aligner.errors import DataError, Problem
from aligner.models.load import load_model, save_model
from aligner.models.wrapped import output_head
from aligner.recipe.stages import SftRecipe
from aligner.recipe.training import TrainSpec
from aligner.run.folder import RunFolder
from aligner.run.seed import seed_everything
from aligner.stages.batches import AnswerCollator, Batch, LabelledRow
from aligner.stages.loop import StageTrainer, optimizer_choice, plan_of, run_training
from aligner.stages.losses import IGNORED, next_token_nats
from aligner.stages.sources import tell_sources
from aligner.stages.stage import StageResult, epochs_begun, training_arguments

BETA2 = 0.999


class AnswerTrainer(StageTrainer, SFTTrainer):
    """TRL's trainer with the output layer run on labelled positions alone, on any device.

    TRL 1.16 scores every position where there is no Triton (trl/trainer/utils.py, add_fused_lm_head). Same loss.
    """

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """Nats, summed over the labelled tokens."""
        return next_token_nats(model, output_head(model), batch)

    def count(self, batch: Batch) -> Tensor:
        """Labelled tokens."""
        return (batch["targets"] != IGNORED).sum()


def train_sft(recipe: SftRecipe, run: RunFolder) -> StageResult:
    """Load, tokenise, train (LoRA or all weights), measure the answers held out, save."""
    seed_everything(recipe.seed)
    loaded = load_model(recipe.model)
    begun = partial(epochs_begun, recipe.train)
    data = build_conversations(recipe.data, loaded.tokenizer, seed=recipe.seed, epochs=begun)
    run.start(parents={"base": loaded.identity}, data=data.report.to_json(), seed=recipe.seed)
    if not data.train:
        raise DataError(
            Problem("data.train", "there are no rows to train on", "look at the sources with `aligner show`")
        )
    trainer = answer_trainer(
        loaded.model, loaded.tokenizer, data.train, recipe.train, run, seed=recipe.seed, mix=data.mix
    )
    tell_sources(run, data, trainer.plan.order)
    per_pass = recipe.train.rows_per_device or recipe.train.rows_per_step

    def holdout() -> dict[str, float]:
        if not data.holdout:
            return {}
        return {
            "holdout/loss_nats": answer_loss(
                loaded.model, data.holdout, trainer.data_collator, rows_per_pass=per_pass
            )
        }

    before = holdout()
    run_training(trainer, run, title="sft", look=holdout, every=recipe.train.evaluate_every)
    after = holdout()
    if after:
        run.metrics.log(trainer.state.global_step, after)
    save_model(loaded, run.model_dir, base_folder=run.base_dir)
    return StageResult(run.model_dir, _results(before, after))


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
) -> AnswerTrainer:
    """The trainer for these rows, ready to run: nothing is tokenised, cut, packed or filtered again.

    `mix`: which of them an epoch reads; all when left out.
    """
    per_epoch = mix.rows_per_epoch if mix else len(rows)
    args = training_arguments(train, run, rows=per_epoch, seed=seed, kind=SFTConfig, beta2=BETA2)
    args.max_length = None
    args.dataset_kwargs = {"skip_prepare_dataset": True}
    trainer = AnswerTrainer(
        model=model,
        args=args,
        data_collator=AnswerCollator(tokenizer.pad_token_id),
        train_dataset=Dataset.from_list([labelled(row) for row in rows]),
        processing_class=tokenizer,
        optimizer_cls_and_kwargs=optimizer_choice(train, beta2=BETA2),
    )
    lengths = [len(row.input_ids) for row in rows]
    trainer.plan = plan_of(train, rows=per_epoch, seed=seed, lengths=lengths, mix=mix)
    return trainer


def labelled(row: TokenRow) -> LabelledRow:
    """A row in TRL's columns."""
    return {"input_ids": row.input_ids, "labels": row.labels}


@torch.no_grad()
def answer_loss(
    model: nn.Module, rows: Sequence[TokenRow], collate: AnswerCollator, *, rows_per_pass: int
) -> float:
    """Mean cross-entropy per supervised token over all rows together, in nats, in float32."""
    model.eval()
    device = next(model.parameters()).device
    head = output_head(model)
    by_length = sorted(rows, key=lambda row: len(row.input_ids))
    nats = torch.zeros((), dtype=torch.float64)
    count = 0
    for start in range(0, len(by_length), rows_per_pass):
        batch = collate([labelled(row) for row in by_length[start : start + rows_per_pass]])
        count += int((batch["targets"] != IGNORED).sum())
        nats += (
            next_token_nats(model, head, {name: tensor.to(device) for name, tensor in batch.items()})
            .double()
            .cpu()
        )
    return float(nats / max(count, 1))
