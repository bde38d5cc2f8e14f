"""DPO and KTO: pairs in, a policy out, without a reward model.

Rafailov et al. 2023 (arXiv:2305.18290), Ethayarajh et al. 2024 (arXiv:2402.01306). Loop and losses are ours, since
TRL's trainers take text alone and tokenise it after their own templates; tests hold them equal to TRL's, loss by loss.
The start model is the reference; it reads every answer once, before training, so a step costs one model's passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import TrainingArguments

from aligner.data.build import build_pairs
from aligner.data.mix import Mix
from aligner.data.tokens import PairRow
from aligner.errors import DataError, Problem
from aligner.models.heads import RewardModel
from aligner.models.load import LoadedModel, load_model, save_model
from aligner.models.scoring import Scoring
from aligner.models.wrapped import device_of
from aligner.recipe.preference import DpoSpec, KtoSpec, PreferenceRecipe
from aligner.recipe.training import TrainSpec
from aligner.rl.rewards import load_functions, load_rewards
from aligner.run.folder import RunFolder
from aligner.run.home import rows_home
from aligner.run.seed import seed_everything
from aligner.stages.batches import NumberCollator, PairColumns, numbers_of
from aligner.stages.loop import LoopPlan, plan_of, run_training
from aligner.stages.optimizer import optimizer_choice
from aligner.stages.pairs import WeighedColumns, columns, holdout_metrics, holdout_results, pair_length
from aligner.stages.preference_trainers import DpoTrainer, KtoCollator, KtoTrainer
from aligner.stages.sources import row_name, tell_sources
from aligner.stages.stage import StageResult, new_model, resolve_precision, training_arguments
from aligner.stages.watching import Watcher, watched_prompts

BETA2 = 0.999


def train_preference(recipe: PreferenceRecipe, run: RunFolder) -> StageResult:
    """Load, tokenise, ask the reference once, train, measure on held-out pairs and prompts, save."""
    load_functions(recipe.reward)
    seed_everything(recipe.seed)
    loaded, spec, train = load_model(recipe.model), recipe.numbers, recipe.train
    prompts = watched_prompts(recipe, loaded)
    rewards = load_rewards(recipe.reward if prompts else [], loaded.tokenizer)
    rewards.check_prompts([row.prompt for row in prompts.rows] if prompts else [])
    data = build_pairs(recipe.data, loaded.tokenizer, seed=recipe.seed, keep=rows_home())
    read = {"pairs": data.report.to_json()} | ({"watch": prompts.report.to_json()} if prompts else {})
    run.start(parents={"base": loaded.identity} | rewards.identities(), data=read, seed=recipe.seed)
    check_pairs(data.train, recipe)
    trainer = preference_trainer(loaded, data.train, recipe, run, mix=data.mix)
    tell_sources(run, data, trainer.rows_read)
    trainer.row_name = partial(row_name, data)
    before = reference_nats(loaded, data.holdout, train)

    def gaps() -> list[float]:
        rewards_P2 = spec.beta * (reference_nats(loaded, data.holdout, train) - before)
        return (rewards_P2[:, 0] - rewards_P2[:, 1]).tolist()

    watcher = Watcher(recipe, run, loaded, prompts, rewards) if prompts else None

    def look() -> dict[str, float]:
        held = holdout_metrics(gaps()) if data.holdout else {}
        return held | (watcher.look(trainer.state.global_step) if watcher else {})

    watched = bool(data.holdout or watcher)
    run_training(
        trainer,
        run,
        title=recipe.stage,
        look=look if watched else None,
        every=train.evaluate_every,
        from_start=True,
    )
    if not run.leads:
        return StageResult(None, {})
    if watched:
        run.metrics.log(trainer.state.global_step, look())
    with new_model(run) as folder:
        save_model(loaded, folder, base_folder=run.base_dir)
    results = holdout_results(data.holdout, gaps(), area=recipe.stage)
    return StageResult(run.model_dir, results | (watcher.results() if watcher else {}))


def preference_trainer(
    loaded: LoadedModel,
    pairs: Sequence[PairRow],
    recipe: PreferenceRecipe,
    run: RunFolder,
    *,
    mix: Mix | None = None,
) -> DpoTrainer | KtoTrainer:
    """The trainer for these pairs, ready to run; the model as it is now becomes the reference.

    `mix`: which of them an epoch reads; all when left out. Of KTO a row of its data set is a reading of a pair, since
    the pair beside it may be another one the next time.
    """
    train, spec = recipe.train, recipe.numbers
    per_epoch = mix.rows_per_epoch if mix else len(pairs)
    lengths = [pair_length(pair) for pair in pairs]
    plan = plan_of(train, rows=per_epoch, seed=recipe.seed, lengths=lengths, mix=mix)
    rows: Sequence[PairColumns] = with_reference(loaded, pairs, plan.order, train)
    order = plan.order
    if isinstance(spec, KtoSpec) and spec.loss == "kto":
        rows, order = [rows[number] for number in order], list(range(len(order)))
        add_others(rows, loaded, [pairs[i] for i in plan.order], recipe)
    trainer = (DpoTrainer if isinstance(spec, DpoSpec) else KtoTrainer)(
        model=loaded.model,
        args=training_arguments(
            train, run, rows=per_epoch, seed=recipe.seed, kind=TrainingArguments, beta2=BETA2
        ),
        data_collator=NumberCollator(rows.__getitem__, KtoCollator(loaded.tokenizer.pad_token_id)),
        train_dataset=numbers_of(len(rows)),
        processing_class=loaded.tokenizer,
        optimizer_cls_and_kwargs=optimizer_choice(train, beta2=BETA2),
    )
    trainer.spec, trainer.rows_read = spec, plan.order
    trainer.plan = LoopPlan(order, plan.precision)
    return trainer


def with_reference(
    loaded: LoadedModel, pairs: Sequence[PairRow], order: Sequence[int], train: TrainSpec
) -> WeighedColumns:
    """The pairs in columns, with what the reference says of those that `order` reads; it is asked once of each."""
    read = sorted(set(order))
    said = reference_nats(loaded, [pairs[i] for i in read], train).cpu()
    nats_P2 = said.new_zeros(len(pairs), 2)  # of those that are never read
    nats_P2[read] = said
    return WeighedColumns(pairs, nats_P2)


def add_others(
    rows: Sequence[PairColumns], loaded: LoadedModel, read: Sequence[PairRow], recipe: PreferenceRecipe
) -> None:
    """Put the answers of the step's pair before under each pair's prompt, as the column `other`.

    By their gain KTO judges what a gain is worth (arXiv:2402.01306, section 4.1); the first pair of a step has the
    last one's. Cut at data.max_length.
    """
    others = [
        with_answers(pair, read[other], recipe.data.max_length)
        for pair, other in zip(read, places_before(len(read), recipe.train.rows_per_step), strict=True)
    ]
    for row, other, nats_2 in zip(rows, others, reference_nats(loaded, others, recipe.train), strict=True):
        row["other"] = columns(other, with_margin=False)
        row["other"]["reference"] = nats_2.tolist()


def places_before(count: int, rows_per_step: int) -> list[int]:
    """The place before each place, in a ring around each step. By hand: 4 places, 2 a step -> 1, 0, 3, 2."""
    return [place - 1 if place % rows_per_step else place + rows_per_step - 1 for place in range(count)]


def with_answers(pair: PairRow, other: PairRow, max_length: int) -> PairRow:
    """The prompt of `pair` before the answers of `other`."""
    prompt = pair.chosen_ids[: pair.prompt_length]
    chosen, rejected = (ids[other.prompt_length :] for ids in (other.chosen_ids, other.rejected_ids))
    return PairRow(
        (prompt + chosen)[:max_length], (prompt + rejected)[:max_length], None, "", pair.prompt_length
    )


def reference_nats(loaded: LoadedModel, pairs: Sequence[PairRow], train: TrainSpec) -> Tensor:
    """log p(answer | prompt) of each pair's chosen and rejected answer, in nats, in the numbers of training: (P, 2)."""
    scorer = RewardModel(loaded.model, loaded.tokenizer, scoring=Scoring("likelihood"))
    rows = [pair.chosen_ids for pair in pairs] + [pair.rejected_ids for pair in pairs]
    per_pass = 2 * (train.rows_per_device or train.rows_per_step)
    device = device_of(loaded.model).type
    is_bf16 = resolve_precision(train.precision).name == "bf16"
    with torch.autocast(device, torch.bfloat16, enabled=is_bf16):
        nats_2P = scorer.score(rows, [pair.prompt_length for pair in pairs] * 2, batch_size=per_pass)
    return nats_2P.view(2, len(pairs)).T


def check_pairs(pairs: Sequence[PairRow], recipe: PreferenceRecipe) -> None:
    """DataError where there are no pairs, or margins that the loss has no place for."""
    if not pairs:
        remedy = "look at the sources with `aligner show`"
        raise DataError(Problem("data.train", "there are no pairs to train on", remedy))
    with_margin, loss = sum(pair.margin is not None for pair in pairs), recipe.numbers.loss
    if with_margin and loss not in ("sigmoid", "hinge"):
        fault = f"{loss} has no place for the margins of {with_margin:,} pairs"
        remedy = "leave them out of the rows, or take dpo with sigmoid or hinge"
        raise DataError(Problem(f"{recipe.stage}.loss", fault, remedy))
