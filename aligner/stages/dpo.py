"""Direct preference optimisation: pairs in, a policy out, without a reward model.

Rafailov et al. 2023 (arXiv:2305.18290). The loop and the loss are ours, since TRL's trainer takes text alone and
tokenises it after its own templates; tests hold them equal to TRL's, loss by loss. The start model is the reference; it
reads every pair once, before training, so a step costs one model's passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import TrainingArguments

from aligner.data.build import build_pairs
from aligner.data.mix import Mix
from aligner.data.tokens import PairRow
from aligner.errors import DataError, Problem
from aligner.models.heads import RewardModel
from aligner.models.load import LoadedModel, load_model, save_model
from aligner.models.scoring import Scoring, likelihood_scores
from aligner.models.wrapped import device_of
from aligner.recipe.preference import DpoRecipe, DpoSpec
from aligner.recipe.training import TrainSpec
from aligner.rl.rewards import load_functions, load_rewards
from aligner.run.folder import RunFolder
from aligner.run.seed import seed_everything
from aligner.stages.batches import Batch, PairCollator
from aligner.stages.loop import StageTrainer, optimizer_choice, plan_of, run_training
from aligner.stages.losses import preference_loss
from aligner.stages.pairs import holdout_metrics, holdout_results, pair_length, weighed_columns
from aligner.stages.sources import tell_sources
from aligner.stages.stage import StageResult, resolve_precision, training_arguments
from aligner.stages.watching import Watcher, watched_prompts

BETA2 = 0.999


class Seen(NamedTuple):
    """Sums over training pairs since the last line of metrics."""

    wins: float = 0.0
    gaps: float = 0.0
    chosen: float = 0.0
    pairs: int = 0


class DpoTrainer(StageTrainer):
    """The loss of the recipe on log(policy / reference) of pairs, the mean taken over the pairs of the whole step."""

    loss_metric = "dpo/loss"
    spec: DpoSpec
    _seen = Seen()

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """The recipe's loss, summed over the pairs; `nll_coef` as in the reward stage."""
        model.eval()  # dropout would make the policy another one than the reference before the first step
        lengths_B = batch["prompt_lengths"]
        logprobs_B = likelihood_scores(model, batch["input_ids"], batch["attention_mask"], lengths_B)
        ratios_B = logprobs_B - batch["reference"]
        self._note(self.spec.beta * ratios_B.detach())
        tokens_B = batch["attention_mask"].sum(dim=1) - lengths_B
        weight_B = batch.get("weight")
        loss = preference_loss(
            ratios_B,
            tokens_B,
            loss=self.spec.loss,
            beta=self.spec.beta,
            margin_B=batch.get("margin"),
            weight_B=weight_B,
        )
        if not self.spec.nll_coef:
            return loss
        chosen_B = logprobs_B.chunk(2)[0]
        return loss - self.spec.nll_coef * (chosen_B if weight_B is None else weight_B * chosen_B).sum()

    def count(self, batch: Batch) -> Tensor:
        """Pairs; not their weights, whose mean is 1 over the training rows, not over each step."""
        return torch.tensor(len(batch["input_ids"]) // 2)

    def _note(self, rewards_B: Tensor) -> None:
        chosen_B, rejected_B = rewards_B.chunk(2)
        gap_B = chosen_B - rejected_B
        won = float((gap_B > 0).sum() + 0.5 * (gap_B == 0).sum())
        found = Seen(won, float(gap_B.sum()), float(chosen_B.sum()), len(gap_B))
        self._seen = Seen(*(a + b for a, b in zip(self._seen, found, strict=True)))

    def more_metrics(self) -> dict[str, float]:
        """Implicit rewards of the training pairs since the last call."""
        seen, self._seen = self._seen, Seen()
        return {
            "dpo/accuracy_share": seen.wins / seen.pairs,
            "dpo/margin_mean": seen.gaps / seen.pairs,
            "dpo/chosen_reward_mean": seen.chosen / seen.pairs,
        }


def train_dpo(recipe: DpoRecipe, run: RunFolder) -> StageResult:
    """Load, tokenise, ask the reference once, train, measure on held-out pairs and prompts, save."""
    load_functions(recipe.reward)
    seed_everything(recipe.seed)
    loaded = load_model(recipe.model)
    prompts = watched_prompts(recipe, loaded)
    rewards = load_rewards(recipe.reward if prompts else [], loaded.tokenizer)
    data = build_pairs(recipe.data, loaded.tokenizer, seed=recipe.seed)
    read = {"pairs": data.report.to_json()} | ({"watch": prompts.report.to_json()} if prompts else {})
    run.start(parents={"base": loaded.identity} | rewards.identities(), data=read, seed=recipe.seed)
    check_pairs(data.train, recipe.dpo)
    trainer = dpo_trainer(loaded, data.train, recipe.dpo, recipe.train, run, seed=recipe.seed, mix=data.mix)
    tell_sources(run, data, trainer.plan.order)
    before = reference_nats(loaded, data.holdout, recipe.train)

    def gaps() -> list[float]:
        rewards_P2 = recipe.dpo.beta * (reference_nats(loaded, data.holdout, recipe.train) - before)
        return (rewards_P2[:, 0] - rewards_P2[:, 1]).tolist()

    watcher = Watcher(recipe, run, loaded, prompts, rewards) if prompts else None

    def look(found: Sequence[float] | None = None) -> dict[str, float]:
        held = holdout_metrics(found or gaps()) if data.holdout else {}
        return held | (watcher.look(trainer.state.global_step) if watcher else {})

    looks = {"look": look, "every": recipe.train.evaluate_every} if data.holdout or watcher else {}
    run_training(trainer, run, title="dpo", **looks, from_start=True)
    found = gaps()
    if looks:
        run.metrics.log(trainer.state.global_step, look(found))
    save_model(loaded, run.model_dir, base_folder=run.base_dir)
    results = holdout_results(data.holdout, found, area="dpo")
    return StageResult(run.model_dir, results | (watcher.results() if watcher else {}))


def dpo_trainer(
    loaded: LoadedModel,
    pairs: Sequence[PairRow],
    spec: DpoSpec,
    train: TrainSpec,
    run: RunFolder,
    *,
    seed: int,
    mix: Mix | None = None,
) -> DpoTrainer:
    """The trainer for these pairs, ready to run; the model as it is now becomes the reference.

    `mix`: which of them an epoch reads; all when left out.
    """
    per_epoch = mix.rows_per_epoch if mix else len(pairs)
    lengths = [pair_length(pair) for pair in pairs]
    plan = plan_of(train, rows=per_epoch, seed=seed, lengths=lengths, mix=mix)
    rows, read = weighed_columns(pairs), sorted(set(plan.order))
    for row in rows:
        row["reference"] = [0.0, 0.0]  # of a row that is never read
    for number, nats_2 in zip(read, reference_nats(loaded, [pairs[i] for i in read], train), strict=True):
        rows[number]["reference"] = nats_2.tolist()
    trainer = DpoTrainer(
        model=loaded.model,
        args=training_arguments(train, run, rows=per_epoch, seed=seed, kind=TrainingArguments, beta2=BETA2),
        data_collator=PairCollator(loaded.tokenizer.pad_token_id),
        train_dataset=Dataset.from_list(rows),
        processing_class=loaded.tokenizer,
        optimizer_cls_and_kwargs=optimizer_choice(train, beta2=BETA2),
    )
    trainer.spec, trainer.plan = spec, plan
    return trainer


def reference_nats(loaded: LoadedModel, pairs: Sequence[PairRow], train: TrainSpec) -> Tensor:
    """log p(answer | prompt) of each pair's chosen and rejected answer, in nats, in the numbers of training: (P, 2)."""
    scorer = RewardModel(loaded.model, loaded.tokenizer, scoring=Scoring("likelihood"))
    rows = [pair.chosen_ids for pair in pairs] + [pair.rejected_ids for pair in pairs]
    per_pass = 2 * (train.rows_per_device or train.rows_per_step)
    device = device_of(loaded.model).type
    is_bf16 = resolve_precision(train.precision).name == "bf16"
    with torch.autocast(device, torch.bfloat16, enabled=is_bf16):
        nats_2P = scorer.score(rows, [pair.prompt_length for pair in pairs] * 2, batch_size=per_pass)
    return nats_2P.view(2, -1).T


def check_pairs(pairs: Sequence[PairRow], spec: DpoSpec) -> None:
    """DataError where there are no pairs, or margins that the loss has no place for."""
    if not pairs:
        remedy = "look at the sources with `aligner show`"
        raise DataError(Problem("data.train", "there are no pairs to train on", remedy))
    with_margin = sum(pair.margin is not None for pair in pairs)
    if spec.loss == "ipo" and with_margin:
        fault = f"ipo has no place for the margins of {with_margin:,} pairs"
        raise DataError(Problem("dpo.loss", fault, "take sigmoid or hinge, or leave the margins out"))
