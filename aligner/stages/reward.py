"""A Bradley-Terry reward model: pairs in, a scoring model with a known scale out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from datasets import Dataset
from torch import Tensor, nn
from trl import RewardConfig, RewardTrainer
from trl.trainer.utils import disable_dropout_in_model

from aligner.data.build import build_pairs, build_prompts
from aligner.data.mix import Mix
from aligner.data.tokens import PairRow
from aligner.errors import DataError, Problem, TrainingError
from aligner.models.heads import RewardModel, RewardStats, write_stats
from aligner.models.load import LoadedModel, load_model, load_reward_base, load_trained, save_model
from aligner.models.sample import prompt_room, sample_responses
from aligner.models.scoring import Scoring
from aligner.recipe.stages import RewardRecipe
from aligner.recipe.training import TrainSpec
from aligner.run.folder import RunFolder
from aligner.run.home import rows_home
from aligner.run.progress import say
from aligner.run.seed import seed_everything
from aligner.stages.batches import Batch, NumberCollator, PairCollator, numbers_of
from aligner.stages.loop import StageTrainer, plan_of, run_training
from aligner.stages.losses import bradley_terry_nats
from aligner.stages.optimizer import optimizer_choice
from aligner.stages.pairs import WeighedColumns, holdout_metrics, holdout_results, pair_length
from aligner.stages.sources import row_name, tell_sources
from aligner.stages.stage import StageResult, new_model, training_arguments

BETA2 = 0.999
RELOAD_TOLERANCE = 1e-5  # float32, same weights, same rows
RELOAD_ROWS = 8
SUSPICIOUS = 0.4  # share of held-out pairs below which chance is no excuse


@dataclass(frozen=True)
class Answers:
    """Rendered prompts with their answers; each prompt is the first `prompt_lengths` ids."""

    sequences: list[list[int]]
    prompt_lengths: list[int]


class PairTrainer(StageTrainer):
    """Bradley-Terry on the scores of pairs, the mean taken over the pairs of the whole step."""

    loss_metric = "reward/loss_nats"
    scoring: Scoring
    nll_coef: float = 0.0

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """Bradley-Terry nats, summed over the pairs.

        With `nll_coef`, also that much of what the chosen answers cost: the second term of CPO (Xu et al. 2024,
        arXiv:2401.08417). It keeps a likelihood that learns what is worse from forgetting what is right.
        """
        scores_B = self.scoring.scores(
            model, batch["input_ids"], batch["attention_mask"], batch["prompt_lengths"]
        )
        chosen_B, rejected_B = scores_B.chunk(2)
        gap_B = (chosen_B - rejected_B).detach()
        sums = self.plan.sums
        sums["wins"] += float((gap_B > 0).sum() + 0.5 * (gap_B == 0).sum())
        sums["gaps"] += float(gap_B.sum())
        sums["pairs"] += len(gap_B)
        weight_B = batch.get("weight")
        nats = bradley_terry_nats(chosen_B, rejected_B, batch.get("margin"), weight_B)
        learnt_B = chosen_B if weight_B is None else weight_B * chosen_B
        chosen_nats = -learnt_B.sum() / self.scoring.beta if self.nll_coef else 0.0
        return nats + self.nll_coef * chosen_nats

    def count(self, batch: Batch) -> Tensor:
        """Pairs; not their weights, whose mean is 1 over the training rows, not over each step."""
        return torch.tensor(len(batch["input_ids"]) // 2)

    def more_metrics(self) -> dict[str, float]:
        """Accuracy and mean margin over the training pairs since the last line of metrics."""
        sums = self.plan.sums
        wins, gaps, pairs = self.totals([sums["wins"], sums["gaps"], sums["pairs"]])
        return {"reward/accuracy_share": wins / pairs, "reward/margin_mean": gaps / pairs}


class HeadTrainer(PairTrainer, RewardTrainer):
    """TRL's trainer of score heads, with scores read by the attention mask."""

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        """As it is: the rows are ready, and its numbers name them."""
        return dataset


def train_reward(recipe: RewardRecipe, run: RunFolder) -> StageResult:
    """Load, tokenise, train, measure on held-out pairs, fix the scale, save and prove that it loads.

    The scale's samples are the start model's, so they are drawn first: no mistake in them can cost a trained model.
    """
    seed_everything(recipe.seed)
    scoring = Scoring(recipe.score, recipe.beta)
    loaded = load_reward_base(recipe.model) if recipe.score == "head" else load_model(recipe.model)
    data = build_pairs(recipe.data, loaded.tokenizer, seed=recipe.seed, keep=rows_home())
    run.start(parents={"base": loaded.identity}, data=data.report.to_json(), seed=recipe.seed)
    if not data.train:
        raise DataError(
            Problem("data.train", "there are no pairs to train on", "look at the sources with `aligner show`")
        )
    samples = scale_samples(recipe, data.holdout or data.train)
    trainer = pair_trainer(
        loaded,
        data.train,
        scoring,
        recipe.train,
        run,
        seed=recipe.seed,
        nll_coef=recipe.nll_coef,
        mix=data.mix,
    )
    tell_sources(run, data, trainer.plan.order)
    trainer.row_name = partial(row_name, data)
    scorer = RewardModel(loaded.model, loaded.tokenizer, scoring=scoring)
    per_pass = 2 * (recipe.train.rows_per_device or recipe.train.rows_per_step)

    def gaps() -> list[float]:
        loaded.model.eval()
        return margins_of(scorer, data.holdout, rows_per_pass=per_pass)

    look = (lambda: holdout_metrics(gaps())) if data.holdout else None
    run_training(trainer, run, title="reward", look=look, every=recipe.train.evaluate_every)
    if not run.leads:
        return StageResult(None, {})
    found = gaps()
    if data.holdout:
        run.metrics.log(trainer.state.global_step, holdout_metrics(found))
        tell_if_swapped(run, found)
    scores = scorer.score(samples.sequences, samples.prompt_lengths, batch_size=per_pass)
    stats = RewardStats(float(scores.mean()), float(scores.std()), len(scores), scoring)
    with new_model(run) as folder:
        save_model(loaded, folder, base_folder=run.base_dir)
        write_stats(folder, stats)
    check_reload(run, samples, scores)
    scale = {"reward/reward_mean": stats.mean, "reward/reward_std": stats.std}
    return StageResult(run.model_dir, holdout_results(data.holdout, found) | scale)


def tell_if_swapped(run: RunFolder, gaps: Sequence[float]) -> None:
    """A word where the trained model prefers what was rejected: no learning is worse than a coin."""
    share = sum(gap > 0 for gap in gaps) / len(gaps)
    if share + sum(gap == 0 for gap in gaps) / (2 * len(gaps)) < SUSPICIOUS:
        say(
            f"{run.path}: right about {share:.0%} of {len(gaps)} held-out pairs, worse than a coin;"
            " are chosen and rejected swapped in some of the data?"
        )


def pair_trainer(
    loaded: LoadedModel,
    pairs: Sequence[PairRow],
    scoring: Scoring,
    train: TrainSpec,
    run: RunFolder,
    *,
    seed: int,
    nll_coef: float = 0.0,
    mix: Mix | None = None,
) -> PairTrainer:
    """The trainer for these pairs, ready to run; dropout is off, as in every reward model here.

    `mix`: which of them an epoch reads; all when left out.
    """
    per_epoch = mix.rows_per_epoch if mix else len(pairs)
    args = training_arguments(train, run, rows=per_epoch, seed=seed, kind=RewardConfig, beta2=BETA2)
    args.max_length = None
    disable_dropout_in_model(loaded.model)  # TRL's trainer of heads would do it, the plain one does not
    rows = WeighedColumns(pairs)
    trainer = (HeadTrainer if scoring.kind == "head" else PairTrainer)(
        model=loaded.model,
        args=args,
        data_collator=NumberCollator(rows.__getitem__, PairCollator(loaded.tokenizer.pad_token_id)),
        train_dataset=numbers_of(len(rows)),
        processing_class=loaded.tokenizer,
        optimizer_cls_and_kwargs=optimizer_choice(train, beta2=BETA2),
    )
    lengths = [pair_length(pair) for pair in pairs]
    trainer.scoring, trainer.nll_coef = scoring, nll_coef
    trainer.plan = plan_of(train, rows=per_epoch, seed=seed, lengths=lengths, mix=mix)
    return trainer


def margins_of(scorer: RewardModel, pairs: Sequence[PairRow], *, rows_per_pass: int) -> list[float]:
    """score(chosen) - score(rejected) of each pair, in float32."""
    rows = [pair.chosen_ids for pair in pairs] + [pair.rejected_ids for pair in pairs]
    scores = scorer.score(rows, [pair.prompt_length for pair in pairs] * 2, batch_size=rows_per_pass)
    return (scores[: len(pairs)] - scores[len(pairs) :]).tolist()


def scale_samples(recipe: RewardRecipe, pairs: Sequence[PairRow]) -> Answers:
    """What mean and std of the reward are taken over: the start model's own answers, which is where PPO begins.

    Without `normalise_on` prompts: both answers of the given pairs.
    """
    if not recipe.normalise_on:
        both = [list(ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
        return Answers(both, [pair.prompt_length for pair in pairs for _ in range(2)])
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
    sampled = zip(rows, answers.ids_BR, answers.mask_BR, strict=True)
    return Answers([row + ids[mask].tolist() for row, ids, mask in sampled], [len(row) for row in rows])


def check_reload(run: RunFolder, samples: Answers, scores: Tensor) -> None:
    """The saved model must give the scores that the trained one gave."""
    saved = RewardModel.from_folder(run.model_dir)
    again = saved.score(samples.sequences[:RELOAD_ROWS], samples.prompt_lengths[:RELOAD_ROWS])
    scores = scores[:RELOAD_ROWS]
    worst = float((again - scores).abs().max())
    if worst > RELOAD_TOLERANCE * max(1.0, float(scores.abs().max())):
        fault = f"the saved reward model scores the same rows differently (by up to {worst:.2g})"
        raise TrainingError(Problem(str(run.model_dir), fault, "please report this"))
