"""A Bradley-Terry reward model: pairs in, a scoring model with a known scale out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from datasets import Dataset
from torch import Tensor, nn
from trl import RewardConfig, RewardTrainer

from aligner.data.build import build_pairs, build_prompts
from aligner.data.tokens import PairRow
from aligner.errors import DataError, Problem, TrainingError
from aligner.evals.preference import (
    Accuracy,
    accuracy_by_kind,
    calibration_error,
    pair_accuracy,
    prompts_of,
)
from aligner.models.heads import RewardModel, pooled_scores, write_stats
from aligner.models.load import LoadedModel, load_reward_base, load_trained, save_model
from aligner.models.sample import prompt_room, sample_responses
from aligner.recipe.stages import RewardRecipe
from aligner.recipe.training import TrainSpec
from aligner.run.folder import RunFolder
from aligner.run.seed import seed_everything
from aligner.stages.batches import Batch, PairCollator, PairColumns
from aligner.stages.loop import StageTrainer, optimizer_choice, plan_of, run_training
from aligner.stages.losses import bradley_terry_nats
from aligner.stages.stage import StageResult, training_arguments

BETA2 = 0.999
RELOAD_TOLERANCE = 1e-5  # float32, same weights, same rows
RELOAD_ROWS = 8


class PairTrainer(StageTrainer, RewardTrainer):
    """TRL's trainer with scores read by the attention mask, and the mean taken over the pairs of the whole step."""

    loss_metric = "reward/loss_nats"
    _seen: tuple[float, float, int] = (
        0.0,
        0.0,
        0,
    )  # wins, sum of margins, pairs since the last line of metrics

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """Bradley-Terry nats, summed over the pairs."""
        chosen_B, rejected_B = pooled_scores(model, batch["input_ids"], batch["attention_mask"]).chunk(2)
        gap_B = (chosen_B - rejected_B).detach()
        wins, gaps, pairs = self._seen
        won = (gap_B > 0).sum() + 0.5 * (gap_B == 0).sum()
        self._seen = (wins + float(won), gaps + float(gap_B.sum()), pairs + len(gap_B))
        return bradley_terry_nats(chosen_B, rejected_B, batch.get("margin"))

    def count(self, batch: Batch) -> Tensor:
        """Pairs."""
        return torch.tensor(len(batch["input_ids"]) // 2)

    def more_metrics(self) -> dict[str, float]:
        """Accuracy and mean margin over the training pairs since the last call."""
        (wins, gaps, pairs), self._seen = self._seen, (0.0, 0.0, 0)
        return {"reward/accuracy_share": wins / pairs, "reward/margin_mean": gaps / pairs}


def train_reward(recipe: RewardRecipe, run: RunFolder) -> StageResult:
    """Load, tokenise, train, measure on held-out pairs, fix the scale, save and prove that it loads.

    The scale's samples are the start model's, so they are drawn first: no mistake in them can cost a trained model.
    """
    seed_everything(recipe.seed)
    loaded = load_reward_base(recipe.model)
    data = build_pairs(recipe.data, loaded.tokenizer, seed=recipe.seed)
    run.start(parents={"base": loaded.identity}, data=data.report.to_json(), seed=recipe.seed)
    if not data.train:
        raise DataError(
            Problem("data.train", "there are no pairs to train on", "look at the sources with `aligner show`")
        )
    samples = scale_samples(recipe, data.holdout or data.train)
    trainer = pair_trainer(loaded, data.train, recipe.train, run, seed=recipe.seed)
    scorer = RewardModel(loaded.model, loaded.tokenizer)
    per_pass = 2 * (recipe.train.rows_per_device or recipe.train.rows_per_step)

    def gaps() -> list[float]:
        loaded.model.eval()
        return margins_of(scorer, data.holdout, rows_per_pass=per_pass)

    look = (lambda: holdout_metrics(gaps())) if data.holdout else None
    run_training(trainer, run, title="reward", look=look, every=recipe.train.evaluate_every)
    found = gaps()
    if data.holdout:
        run.metrics.log(trainer.state.global_step, holdout_metrics(found))
    scores = scorer.score(samples, batch_size=per_pass)
    mean, std = float(scores.mean()), float(scores.std())
    save_model(loaded, run.model_dir, base_folder=run.base_dir)
    write_stats(run.model_dir, mean=mean, std=std, rows=len(samples))
    check_reload(run, samples[:RELOAD_ROWS], scores[:RELOAD_ROWS])
    scale = {"reward/reward_mean": mean, "reward/reward_std": std}
    return StageResult(run.model_dir, holdout_results(data.holdout, found) | scale)


def pair_trainer(
    loaded: LoadedModel, pairs: Sequence[PairRow], train: TrainSpec, run: RunFolder, *, seed: int
) -> PairTrainer:
    """The trainer for these pairs, ready to run; dropout is off, as in every reward model here."""
    args = training_arguments(train, run, rows=len(pairs), seed=seed, kind=RewardConfig, beta2=BETA2)
    args.max_length = None
    args.disable_dropout = True
    margins = any(pair.margin is not None for pair in pairs)
    trainer = PairTrainer(
        model=loaded.model,
        args=args,
        data_collator=PairCollator(loaded.tokenizer.pad_token_id),
        train_dataset=Dataset.from_list([columns(pair, with_margin=margins) for pair in pairs]),
        processing_class=loaded.tokenizer,
        optimizer_cls_and_kwargs=optimizer_choice(train, beta2=BETA2),
    )
    lengths = [max(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs]
    trainer.plan = plan_of(train, rows=len(pairs), seed=seed, lengths=lengths)
    return trainer


def columns(pair: PairRow, *, with_margin: bool) -> PairColumns:
    """A pair in TRL's columns; a pair without a margin among others has margin 0."""
    row: PairColumns = {"chosen_ids": list(pair.chosen_ids), "rejected_ids": list(pair.rejected_ids)}
    if with_margin:
        row["margin"] = pair.margin or 0.0
    return row


def margins_of(scorer: RewardModel, pairs: Sequence[PairRow], *, rows_per_pass: int) -> list[float]:
    """score(chosen) - score(rejected) of each pair, in float32."""
    rows = [pair.chosen_ids for pair in pairs] + [pair.rejected_ids for pair in pairs]
    scores = scorer.score(rows, batch_size=rows_per_pass)
    return (scores[: len(pairs)] - scores[len(pairs) :]).tolist()


def holdout_metrics(gaps: Sequence[float]) -> dict[str, float]:
    """What metrics.jsonl says of the hold-out."""
    return {
        "holdout/accuracy_share": pair_accuracy(gaps).share,
        "holdout/margin_mean": sum(gaps) / len(gaps),
    }


def holdout_results(pairs: Sequence[PairRow], gaps: Sequence[float]) -> dict[str, float]:
    """Pooled accuracy with its 95 % interval, over all pairs and by kind, and calibration; empty without pairs."""
    if not pairs:
        return {}
    kinds, prompts = [pair.kind for pair in pairs], prompts_of(pairs)
    found: dict[str, Accuracy] = {"": pair_accuracy(gaps, prompts)}
    found |= {f"[{kind}]": one for kind, one in accuracy_by_kind(gaps, kinds, prompts).items()}
    results: dict[str, float] = {}
    for where, accuracy in found.items():
        results[f"reward/accuracy_share{where}"] = accuracy.share
        results[f"reward/accuracy_low_share{where}"] = accuracy.low
        results[f"reward/accuracy_high_share{where}"] = accuracy.high
    return results | {"reward/calibration_error_share": calibration_error(gaps)}


def scale_samples(recipe: RewardRecipe, pairs: Sequence[PairRow]) -> list[list[int]]:
    """What mean and std of the reward are taken over: the start model's own answers, which is where PPO begins.

    Without `normalise_on` prompts: both answers of the given pairs.
    """
    if not recipe.normalise_on:
        return [list(ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
    start = load_trained(recipe.model.base, recipe.model.revision)
    longest = prompt_room(start.model, recipe.sampling.max_new_tokens)
    prompts = build_prompts(recipe.normalise_on, start.tokenizer, max_prompt_tokens=longest, seed=recipe.seed)
    rows = [list(row.input_ids) for row in prompts.rows[: recipe.normalise_rows]]
    answers = sample_responses(
        start.model,
        rows,
        max_new_tokens=recipe.sampling.max_new_tokens,
        temperature=recipe.sampling.temperature,
        eos_id=start.tokenizer.eos_token_id,
        pad_id=start.tokenizer.pad_token_id,
        generator=torch.Generator().manual_seed(recipe.seed),
    )
    return [
        row + ids[mask].tolist() for row, ids, mask in zip(rows, answers.ids_BR, answers.mask_BR, strict=True)
    ]


def check_reload(run: RunFolder, rows: Sequence[Sequence[int]], scores: Tensor) -> None:
    """The saved model must give the scores that the trained one gave."""
    again = RewardModel.from_folder(run.model_dir).score([list(row) for row in rows]).cpu()
    worst = float((again - scores).abs().max())
    if worst > RELOAD_TOLERANCE * max(1.0, float(scores.abs().max())):
        fault = f"the saved reward model scores the same rows differently (by up to {worst:.2g})"
        raise TrainingError(Problem(str(run.model_dir), fault, "please report this"))
