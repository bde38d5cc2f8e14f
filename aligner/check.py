"""The whole preflight: what a recipe would do, found out without training anything.

Rows are read and tokenised for real, so steps and tokens are exact. Seconds come from a few passes of a model of the
same shape with random weights on this machine; memory is counted from the shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from aligner.ahead import check_plan
from aligner.check_answers import count_rows, evaluate_rows, perplexity_plan, ppo_plan, self_instruct_plan
from aligner.check_rewards import reward_rows
from aligner.data.build import (
    build_conversations,
    build_documents,
    build_pairs,
)
from aligner.data.mix import Mix
from aligner.data.plan import plan_sources, plan_table, report_table, template_rows
from aligner.data.readers.files import joined
from aligner.data.token_rows import lengths_of
from aligner.data.tokens import PairRow
from aligner.errors import Problem, RecipeError
from aligner.estimates import seconds_per_pass, time_row, trained_weights
from aligner.memory import Pass, TrainedRecipe, largest_pass, trained_model, training_memory
from aligner.planning import (
    PlannedStage,
    measured_so_far,
    named_stages,
    perplexity_to_come,
    planned_stages,
    unfinished,
)
from aligner.preflight import sources_of
from aligner.recipe.evaluate import EvaluateRecipe
from aligner.recipe.group import GroupRecipe
from aligner.recipe.perplexity import PerplexityRecipe
from aligner.recipe.plan import Plan, PlanRow, StageParts, StagePlan, epochs_text
from aligner.recipe.ppo import PpoRecipe
from aligner.recipe.preference import PreferenceRecipe
from aligner.recipe.stage import StageRecipe
from aligner.recipe.stages import PretrainRecipe, RewardRecipe, SelfInstructRecipe, SftRecipe
from aligner.recipe.training import TrainSpec
from aligner.run.home import rows_home
from aligner.run.machine import room_to_train
from aligner.stages.loop import plan_of
from aligner.stages.order import Curriculum, RowBatches
from aligner.stages.pairs import pair_length
from aligner.stages.pretrain import curriculum_of, pack_blocks, training_slots
from aligner.stages.sft import batches_of, pack_length_of, padding_row, rows_read
from aligner.stages.stage import epochs_begun, optimiser_steps, resolve_precision
from aligner.start import Start, start_of


def check_recipe(path: Path, overrides: Sequence[str] = ()) -> Plan:
    """What each stage would do. Every mistake in recipes and data is raised as it would be by the run itself."""
    planned = planned_stages(path, overrides)
    try:
        plans = _plans(planned)
    except Exception:
        check_plan(planned, fresh=True)  # where there are mistakes, all of them are told at once
        raise
    check_plan(planned, fresh=True)  # reads what has not been read for the plans
    return Plan(tuple(plans))


def _plans(planned: Sequence[PlannedStage]) -> list[StagePlan]:
    starts: dict[str, Start] = {}
    plans = []
    for asked in planned:
        stage = measured_so_far(asked, planned)
        start = start_of(stage, starts)
        starts[stage.name] = start
        title = f"{stage.name} ({stage.recipe.stage})"
        rows, tables = _plan(stage, start, planned)
        rows = [*_first_rows(asked, stage), *_stream_rows(stage.recipe), *rows]
        plans.append(StagePlan(title, tuple(rows), tables))
    return plans


def _first_rows(asked: PlannedStage, seen: PlannedStage) -> list[PlanRow]:
    """What comes before the stage: recipes that it names and that have not run, and scores of its rows."""
    missing = dict.fromkeys(
        f"{ahead.path} ({ahead.recipe.stage})" for ahead in unfinished(named_stages(seen))
    )
    why = "run first, not counted here: `aligner check` tells its plan"
    rows = [PlanRow("before", named, why) for named in missing]
    if perplexity_to_come(asked, seen):
        rows.append(
            PlanRow("perplexity", "to come", "rows go once they are measured; planned with all of them")
        )
    return rows


def _stream_rows(recipe: StageRecipe) -> list[PlanRow]:
    """What is not known beforehand of sources that are streams."""
    why = "the first ones; how many follow is not known, nor what is in them"
    streams = dict.fromkeys((joined(spec.path), spec.take) for spec, _ in sources_of(recipe) if spec.take)
    return [PlanRow(f"stream {path}", f"{take:,} rows", why) for path, take in streams]


def _plan(stage: PlannedStage, start: Start, planned: Sequence[PlannedStage]) -> StageParts:
    match stage.recipe:
        case PretrainRecipe() as recipe:
            return _pretrain_plan(recipe, start)
        case SftRecipe() as recipe:
            return _sft_plan(recipe, start)
        case RewardRecipe() as recipe:
            return _reward_plan(recipe, start)
        case PreferenceRecipe() as recipe:
            return _preference_plan(recipe, start)
        case PpoRecipe() | GroupRecipe() as recipe:
            return ppo_plan(recipe, start, reward_rows(stage, start, planned))
        case EvaluateRecipe() as recipe:
            return evaluate_rows(recipe, start), ()
        case SelfInstructRecipe() as recipe:
            return self_instruct_plan(recipe, start)
        case PerplexityRecipe() as recipe:
            return perplexity_plan(recipe, start)
        case _:
            raise RecipeError(Problem(str(stage.path), "nothing to plan", "name a stage recipe"))


def _sft_plan(recipe: SftRecipe, start: Start) -> StageParts:
    begun = partial(epochs_begun, recipe.train)
    data = build_conversations(recipe.data, start.tokenizer, seed=recipe.seed, epochs=begun, keep=rows_home())
    lengths = lengths_of(data.train)
    batches = batches_of(recipe.train, lengths, pack_length_of(recipe), seed=recipe.seed, mix=data.mix)
    sources = plan_sources(data.report, data.mix, rows_read(batches))
    tokens, supervised = sum(one.tokens for one in sources), sum(one.supervised_tokens for one in sources)
    share = f"{supervised / max(tokens, 1):.0%}"
    learnt = PlanRow("supervised", share, "share of the tokens that are learnt")
    largest = largest_pass(batches, lengths, scored=supervised / max(tokens, 1))
    rows = _train_rows(recipe, start, _epoch_tokens(data.mix), largest, tokens=tokens)
    tables = report_table(data.report, data.mix), plan_table(sources)
    padding = padding_row(recipe, batches, lengths, start.random_model)
    return [*rows, learnt, padding, *template_rows(sources)], tables


def _reward_plan(recipe: RewardRecipe, start: Start) -> StageParts:
    rows, tables = _pair_parts(recipe, start)
    score = f"{recipe.score} x {recipe.beta:g}" if recipe.score == "likelihood" else recipe.score
    return [*rows, PlanRow("score", score, "the time leaves out sampling for its scale")], tables


def _preference_plan(recipe: PreferenceRecipe, start: Start) -> StageParts:
    rows, tables = _pair_parts(recipe, start)
    compared = (
        "; in each step answers are read under other prompts, too" if recipe.numbers.loss == "kto" else ""
    )
    why = f"reads every pair once before training{compared}: a third of a step each time, not in the time"
    told = [PlanRow("reference", "the start model", why)]
    if recipe.watch.holdout:
        asked = min(count_rows(recipe.watch.holdout, "prompt"), recipe.watch.holdout_rows)
        why = "held-out prompts answered at each evaluation, not in the time"
        told.append(PlanRow("watched", f"{asked:,}", why))
    return [*rows, *told], tables


def _pair_parts(recipe: RewardRecipe | PreferenceRecipe, start: Start) -> StageParts:
    pairs = build_pairs(recipe.data, start.tokenizer, seed=recipe.seed, keep=rows_home())
    lengths = [pair_length(pair) for pair in pairs.train]
    per_epoch = pairs.mix.rows_per_epoch
    plan = plan_of(recipe.train, rows=per_epoch, seed=recipe.seed, lengths=lengths, mix=pairs.mix)
    sources = plan_sources(pairs.report, pairs.mix, plan.order)
    tokens = sum(one.tokens for one in sources)
    both = largest_pass(
        RowBatches(plan.order, _per_pass(recipe.train)), lengths, scored=_answer_share(pairs.train)
    )
    rows = _train_rows(
        recipe, start, _epoch_tokens(pairs.mix), both._replace(rows=2 * both.rows), tokens=tokens
    )
    return rows, (report_table(pairs.report, pairs.mix), plan_table(sources))


def _epoch_tokens(mix: Mix) -> list[int]:
    """Tokens of each row that the first epoch reads."""
    lengths: list[int] = mix.costs.tokens[np.asarray(mix.epoch(0), dtype=np.int64)].tolist()
    return lengths


def _pretrain_plan(recipe: PretrainRecipe, start: Start) -> StageParts:
    documents = build_documents(recipe.data, seed=recipe.seed)
    blocks = pack_blocks(documents, start.tokenizer, recipe)
    curriculum, slots = curriculum_of(recipe, blocks), training_slots(recipe, blocks)
    placed = curriculum.rows_placed(slots) if curriculum else 0
    lengths = [recipe.data.block_length] * len(blocks.train)
    tokens = slots * recipe.data.block_length
    block = recipe.data.block_length
    largest = Pass(_per_pass(recipe.train), block, block)
    rows = _train_rows(recipe, start, lengths, largest, tokens=tokens, others=placed)
    if curriculum:
        rows.append(_curriculum_row(curriculum, slots))
    return rows, (report_table(documents.report),)


def _curriculum_row(curriculum: Curriculum, slots: int) -> PlanRow:
    placed = curriculum.rows_placed(slots)
    left_out = curriculum.rows - placed
    why = f"rows, once each, in the first {curriculum.until:.0%} of the steps"
    fate = f"; {left_out:,} more are left out, for they may take half of these steps" if left_out else ""
    return PlanRow("curriculum", f"{placed:,}", why + fate)


def _per_pass(train: TrainSpec) -> int:
    """Rows of a forward pass on one device."""
    return train.rows_per_device or train.rows_per_step


def _answer_share(pairs: Sequence[PairRow]) -> float:
    """Of a pair's tokens, those of its answers."""
    tokens = sum(len(ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids))
    return 1 - 2 * sum(pair.prompt_length for pair in pairs) / max(tokens, 1)


def _train_rows(
    recipe: TrainedRecipe,
    start: Start,
    lengths: Sequence[int],
    largest: Pass,
    *,
    tokens: int,
    others: int = 0,
) -> list[PlanRow]:
    """The plan of a supervised stage that has epochs of rows of these lengths and reads so many tokens in all.

    `others` rows, not among those, take some of its slots.
    """
    train, spec = recipe.train, trained_model(recipe)
    steps = optimiser_steps(train, rows=len(lengths))
    mean = sum(lengths) / max(len(lengths), 1)
    per_pass, precision = _per_pass(train), resolve_precision(train.precision)
    model = start.random_model()
    seconds = seconds_per_pass(model, rows=per_pass, tokens=round(mean), precision=precision)
    memory = training_memory(recipe, start, largest, model)
    epochs = (steps * train.rows_per_step - others) / len(lengths)
    longest = max(lengths, default=0)
    return [
        PlanRow("rows", f"{len(lengths):,}", f"{mean:.0f} tokens each on average, {longest} at most"),
        PlanRow("steps", f"{steps:,}", f"{train.rows_per_step} rows each: {epochs_text(epochs)} epochs"),
        PlanRow("tokens", f"{tokens:,}", "read in all, padding aside"),
        PlanRow("parameters", f"{start.parameters:,}", trained_weights(start, spec)),
        memory.row(room_to_train(), recipe.stage),
        time_row(seconds, passes=steps * (train.rows_per_step // per_pass)),
        PlanRow("precision", precision.name, precision.reason),
    ]
