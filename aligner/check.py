"""The whole preflight: what a recipe would do, found out without training anything.

Rows are read and tokenised for real, so steps and tokens are exact. Seconds come from a few passes of a model of the
same shape with random weights on this machine; memory is counted from the shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from aligner.data.bootstrap.tasks import build_seed_tasks
from aligner.data.build import (
    build_conversations,
    build_documents,
    build_pairs,
    build_training_prompts,
)
from aligner.data.mix import Mix
from aligner.data.plan import plan_sources, plan_table, report_table, template_rows
from aligner.data.readers import read_source
from aligner.data.readers.kinds import Kind
from aligner.data.tokens import PromptRow
from aligner.errors import Problem, RecipeError
from aligner.estimates import (
    FLOAT_BYTES,
    gib,
    seconds_per_answer,
    seconds_per_pass,
    seconds_per_ppo_step,
    time_row,
    train_bytes,
    trained_weights,
)
from aligner.evals.tasks import STYLES
from aligner.planning import PlannedStage, named_stages, planned_stages, unfinished
from aligner.preflight import check_ahead
from aligner.preview import Start, start_of
from aligner.recipe.data import SourceSpec
from aligner.recipe.evaluate import EvaluateRecipe
from aligner.recipe.model import ModelSpec
from aligner.recipe.plan import Plan, PlanRow, PlanTable, StagePlan
from aligner.recipe.ppo import PpoRecipe, PtxSpec
from aligner.recipe.stages import PretrainRecipe, RewardRecipe, SelfInstructRecipe, SftRecipe
from aligner.recipe.training import TrainSpec
from aligner.stages.loop import plan_of
from aligner.stages.order import Curriculum
from aligner.stages.pretrain import curriculum_of, pack_blocks, training_slots
from aligner.stages.reward import pair_length
from aligner.stages.sft import batches_of, pack_length_of, padding_row, rows_read
from aligner.stages.stage import Precision, epochs_begun, optimiser_steps, resolve_precision

StageParts = tuple[list[PlanRow], tuple[PlanTable, ...]]


def check_recipe(path: Path, overrides: Sequence[str] = ()) -> Plan:
    """What each stage would do. Every mistake in recipes and data is raised as it would be by the run itself."""
    starts: dict[str, Start] = {}
    plans = []
    planned = planned_stages(path, overrides)
    check_ahead([stage.recipe for stage in unfinished(planned, fresh=True)])
    for stage in planned:
        start = start_of(stage, starts)
        starts[stage.name] = start
        title = f"{stage.name} ({stage.recipe.stage})"
        rows, tables = _plan(stage, start)
        plans.append(StagePlan(title, (*_first_rows(stage), *rows), tables))
    return Plan(tuple(plans))


def _first_rows(stage: PlannedStage) -> list[PlanRow]:
    """What is run before the stage, since it is named by its recipe and not there yet."""
    why = "run first, not counted here: `aligner check` their recipes"
    missing = dict.fromkeys(ahead.recipe.stage for ahead in unfinished(named_stages(stage)))
    return [PlanRow("before", ", ".join(missing), why)] if missing else []


def _plan(stage: PlannedStage, start: Start) -> StageParts:
    match stage.recipe:
        case PretrainRecipe() as recipe:
            return _pretrain_plan(recipe, start)
        case SftRecipe() as recipe:
            return _sft_plan(recipe, start)
        case RewardRecipe() as recipe:
            return _reward_plan(recipe, start)
        case PpoRecipe() as recipe:
            return _ppo_plan(recipe, start)
        case EvaluateRecipe() as recipe:
            return _evaluate_rows(recipe, start), ()
        case SelfInstructRecipe() as recipe:
            return _self_instruct_plan(recipe, start)
        case _:
            raise RecipeError(Problem(str(stage.path), "nothing to plan", "name a stage recipe"))


def _sft_plan(recipe: SftRecipe, start: Start) -> StageParts:
    begun = partial(epochs_begun, recipe.train)
    data = build_conversations(recipe.data, start.tokenizer, seed=recipe.seed, epochs=begun)
    lengths = [len(row.input_ids) for row in data.train]
    batches = batches_of(recipe.train, lengths, pack_length_of(recipe), seed=recipe.seed, mix=data.mix)
    sources = plan_sources(data.report, data.mix, rows_read(batches))
    tokens, supervised = sum(one.tokens for one in sources), sum(one.supervised_tokens for one in sources)
    share = f"{supervised / max(tokens, 1):.0%}"
    learnt = PlanRow("supervised", share, "share of the tokens that are learnt")
    rows = _train_rows(recipe.train, start, _epoch_tokens(data.mix), recipe.model, tokens=tokens)
    tables = report_table(data.report, data.mix), plan_table(sources)
    padding = padding_row(recipe, batches, lengths, start.random_model)
    return [*rows, learnt, padding, *template_rows(sources)], tables


def _reward_plan(recipe: RewardRecipe, start: Start) -> StageParts:
    pairs = build_pairs(recipe.data, start.tokenizer, seed=recipe.seed)
    lengths = [pair_length(pair) for pair in pairs.train]
    per_epoch = pairs.mix.rows_per_epoch
    plan = plan_of(recipe.train, rows=per_epoch, seed=recipe.seed, lengths=lengths, mix=pairs.mix)
    sources = plan_sources(pairs.report, pairs.mix, plan.order)
    score = f"{recipe.score} x {recipe.beta:g}" if recipe.score == "likelihood" else recipe.score
    told = PlanRow("score", score, "the time leaves out sampling for its scale")
    tokens = sum(one.tokens for one in sources)
    rows = _train_rows(recipe.train, start, _epoch_tokens(pairs.mix), recipe.model, tokens=tokens)
    return [*rows, told], (report_table(pairs.report, pairs.mix), plan_table(sources))


def _epoch_tokens(mix: Mix) -> list[int]:
    """Tokens of each row that the first epoch reads."""
    return [mix.costs[index].tokens for index in mix.epoch(0)]


def _pretrain_plan(recipe: PretrainRecipe, start: Start) -> StageParts:
    documents = build_documents(recipe.data, seed=recipe.seed)
    blocks = pack_blocks(documents, start.tokenizer, recipe)
    curriculum, slots = curriculum_of(recipe, blocks), training_slots(recipe, blocks)
    placed = curriculum.rows_placed(slots) if curriculum else 0
    lengths = [recipe.data.block_length] * len(blocks.train)
    tokens = slots * recipe.data.block_length
    rows = _train_rows(recipe.train, start, lengths, None, tokens=tokens, others=placed)
    if curriculum:
        rows.append(_curriculum_row(curriculum, slots))
    return rows, (report_table(documents.report),)


def _curriculum_row(curriculum: Curriculum, slots: int) -> PlanRow:
    placed = curriculum.rows_placed(slots)
    left_out = curriculum.rows - placed
    why = f"rows, once each, in the first {curriculum.until:.0%} of the steps"
    fate = f"; {left_out:,} more are left out, for they may take half of these steps" if left_out else ""
    return PlanRow("curriculum", f"{placed:,}", why + fate)


def _train_rows(
    train: TrainSpec,
    start: Start,
    lengths: Sequence[int],
    spec: ModelSpec | None,
    *,
    tokens: int,
    others: int = 0,
) -> list[PlanRow]:
    """The plan of a supervised stage that has epochs of rows of these lengths and reads so many tokens in all.

    `others` rows, not among those, take some of its slots.
    """
    steps = optimiser_steps(train, rows=len(lengths))
    mean = sum(lengths) / max(len(lengths), 1)
    per_pass = train.rows_per_device or train.rows_per_step
    precision = resolve_precision(train.precision)
    model = start.random_model()
    seconds = seconds_per_pass(model, rows=per_pass, tokens=round(mean), precision=precision)
    memory = gib(train_bytes(start, spec, tokens=round(per_pass * mean)))
    epochs = (steps * train.rows_per_step - others) / len(lengths)
    longest = max(lengths, default=0)
    return [
        PlanRow("rows", f"{len(lengths):,}", f"{mean:.0f} tokens each on average, {longest} at most"),
        PlanRow("steps", f"{steps:,}", f"{train.rows_per_step} rows each: {epochs:.2f} epochs"),
        PlanRow("tokens", f"{tokens:,}", "read in all, padding aside"),
        PlanRow("parameters", f"{start.parameters:,}", trained_weights(start, spec)),
        PlanRow("memory", memory, "weights, optimiser and activations"),
        time_row(seconds, passes=steps * (train.rows_per_step // per_pass)),
        PlanRow("precision", precision.name, precision.reason),
    ]


def _ppo_plan(recipe: PpoRecipe, start: Start) -> StageParts:
    data = recipe.data
    longest = data.max_prompt_tokens
    built = build_training_prompts(data, start.tokenizer, max_prompt_tokens=longest, seed=recipe.seed)
    return _ppo_rows(recipe, start, built.rows), (report_table(built.report),)


def _ppo_rows(recipe: PpoRecipe, start: Start, prompts: Sequence[PromptRow]) -> list[PlanRow]:
    ppo = recipe.ppo
    episodes = ppo.prompts_per_step * ppo.samples_per_prompt
    mean = sum(len(row.input_ids) for row in prompts) / len(prompts)
    tokens = round(mean + recipe.sampling.max_new_tokens)
    rows = ppo.rows_per_device or episodes // ppo.minibatches
    updates = ppo.epochs * ppo.minibatches
    seconds = seconds_per_ppo_step(recipe, start, prompts, tokens=tokens)
    frozen = 2 * start.parameters * FLOAT_BYTES  # reference and reward, at most
    memory = gib(train_bytes(start, recipe.model, tokens=rows * tokens) + frozen)
    precision = Precision("fp32", "the ratio is sensitive to rounding") if ppo.precision == "auto" else None
    precision = precision or resolve_precision(ppo.precision)
    return [
        PlanRow("prompts", f"{len(prompts):,}", f"{mean:.0f} tokens each on average"),
        PlanRow("steps", f"{ppo.steps:,}", f"{episodes} responses each: {ppo.steps * episodes:,} episodes"),
        PlanRow(
            "updates",
            f"{ppo.steps * updates:,}",
            f"{ppo.epochs} epochs x {ppo.minibatches} minibatches a step",
        ),
        *([_ptx_row(recipe.ptx, updates=ppo.steps * updates)] if recipe.ptx else []),
        PlanRow("parameters", f"{start.parameters:,}", trained_weights(start, recipe.model)),
        PlanRow("memory", memory, "policy, reference, reward"),
        time_row(seconds, passes=ppo.steps, why="at most: as if no response ended early"),
        PlanRow("precision", precision.name, precision.reason),
    ]


def _ptx_row(ptx: PtxSpec, *, updates: int) -> PlanRow:
    why = f"of {ptx.block_length} tokens, {ptx.rows_per_step} an update at most; they come on top of the time"
    return PlanRow("ptx blocks", f"{updates * ptx.rows_per_step:,}", why)


def _evaluate_rows(recipe: EvaluateRecipe, start: Start) -> list[PlanRow]:
    suites = recipe.suites
    rows = [PlanRow("models", ", ".join(recipe.models))]
    if suites.documents:
        rows.append(PlanRow("documents", f"{_count(suites.documents, 'document'):,}", "held-out text"))
    tasks = {name: _count(sources, "prompt") for name, sources in suites.tasks.items()}
    rows += [PlanRow(name, f"{count:,}", "prompts, one greedy answer each") for name, count in tasks.items()]
    if suites.pairs:
        rows.append(PlanRow("pairs", f"{_count(suites.pairs, 'pair'):,}", "of answers"))
    asked = min(_count(suites.prompts, "prompt"), suites.prompt_rows)
    if asked:
        why = f"prompts, {suites.samples_per_prompt} sampled answers and a greedy one each"
        rows.append(PlanRow("prompts", f"{asked:,}", why))
    answers = _answers(recipe, tasks=sum(tasks.values()), prompts=asked)
    if not answers:
        return rows
    seconds = seconds_per_answer(recipe, start)
    why = f"at most, for {answers:,} answers, as if none ended early; documents and pairs come on top"
    return [*rows, time_row(seconds, passes=answers, why=why)]


def _self_instruct_plan(recipe: SelfInstructRecipe, start: Start) -> StageParts:
    spec = recipe.selfinstruct
    built = build_seed_tasks(recipe.seed_tasks, start.tokenizer, seed=recipe.seed)
    labels = sum(task.classification for task in built.tasks)
    rows = [
        PlanRow("seed tasks", f"{len(built.tasks):,}", f"{labels} of them classifications (short answers)"),
        PlanRow(
            "instructions", f"{spec.instructions:,}", f"new ones, {spec.instances} instances each at most"
        ),
        PlanRow("rounds", f"{spec.rounds:,}", f"at most, of {spec.prompts_per_round} lists each"),
    ]
    least = spec.instructions * (1 + spec.instances)
    why = f"if each of {least:,} texts gave an instruction or an instance that is kept: a guide, no bound"
    return [*rows, time_row(seconds_per_answer(recipe, start), passes=least, why=why)], (
        report_table(built.report),
    )


def _answers(recipe: EvaluateRecipe, *, tasks: int, prompts: int) -> int:
    """How many answers are drawn in all: greedy and sampled ones, few-shot ones in every style."""
    suites, models = recipe.suites, len(recipe.models)
    more_of_reference = max(suites.best_of - suites.samples_per_prompt, 0) if recipe.reference else 0
    few_shot = len(suites.few_shot) * len(suites.shots) * len(STYLES)
    return tasks * (models + few_shot) + prompts * (
        models * (1 + suites.samples_per_prompt) + more_of_reference
    )


def _count(sources: Sequence[SourceSpec], kind: Kind) -> int:
    return sum(len(read_source(source, kind).rows) for source in sources)
