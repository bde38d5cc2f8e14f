"""The whole preflight: what a recipe would do, found out without training anything.

Rows are read and tokenised for real, so steps and tokens are exact. Seconds come from a few passes of a model of the
same shape with random weights on this machine; memory is counted from the shape.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from aligner.data.build import build_conversations, build_documents, build_pairs, build_prompts
from aligner.data.readers import read_source
from aligner.data.readers.kinds import Kind
from aligner.data.tokens import PromptRow
from aligner.errors import Problem, RecipeError
from aligner.evals.suites import SAMPLE_BATCH
from aligner.evals.tasks import STYLES
from aligner.models.sample import prompt_room, sample_responses
from aligner.planning import PlannedStage, named_stages, planned_stages, unfinished
from aligner.preflight import check_ahead
from aligner.preview import Start, start_of
from aligner.recipe.data import SourceSpec
from aligner.recipe.model import ModelSpec
from aligner.recipe.plan import Plan, PlanRow, StagePlan
from aligner.recipe.stages import EvaluateRecipe, PpoRecipe, PretrainRecipe, RewardRecipe, SftRecipe
from aligner.recipe.training import TrainSpec
from aligner.stages.order import Curriculum
from aligner.stages.pretrain import curriculum_of, pack_blocks, training_slots
from aligner.stages.sft import padding_row
from aligner.stages.stage import Precision, optimiser_steps, resolve_precision

FLOAT_BYTES = 4
ADAM_FLOATS = 3  # gradient and two moments, for each trained weight
ACTIVATION_FLOATS = (
    16  # per token, layer and hidden unit, kept for the backward pass (measured on small Llamas)
)
TYPICAL_PROMPT_TOKENS = 48  # of an evaluation's questions, for its time
TIMED_BELOW = 200_000_000  # parameters; larger models are not built just to be timed


def check_recipe(path: Path, overrides: Sequence[str] = ()) -> Plan:
    """What each stage would do. Every mistake in recipes and data is raised as it would be by the run itself."""
    starts: dict[str, Start] = {}
    plans = []
    planned = planned_stages(path, overrides)
    check_ahead(unfinished(planned, fresh=True))
    for stage in planned:
        start = start_of(stage, starts)
        starts[stage.name] = start
        title = f"{stage.name} ({stage.recipe.stage})"
        plans.append(StagePlan(title, (*_first_rows(stage), *_rows(stage, start))))
    return Plan(tuple(plans))


def _first_rows(stage: PlannedStage) -> list[PlanRow]:
    """What is run before the stage, since it is named by its recipe and not there yet."""
    why = "run first, not counted here: `aligner check` their recipes"
    missing = dict.fromkeys(recipe.stage for recipe in unfinished(named_stages(stage)))
    return [PlanRow("before", ", ".join(missing), why)] if missing else []


def _rows(stage: PlannedStage, start: Start) -> list[PlanRow]:
    match stage.recipe:
        case PretrainRecipe() as recipe:
            return _pretrain_rows(recipe, start)
        case SftRecipe() as recipe:
            data = build_conversations(recipe.data, start.tokenizer, seed=recipe.seed)
            lengths = [len(row.input_ids) for row in data.train]
            supervised = sum(sum(row.supervised) for row in data.train)
            learnt = PlanRow(
                "supervised",
                f"{supervised / max(sum(lengths), 1):.0%}",
                "share of the tokens that are learnt",
            )
            padding = padding_row(recipe, lengths, start.random_model)
            return [*_train_rows(recipe.train, start, lengths, recipe.model), learnt, padding]
        case RewardRecipe() as recipe:
            pairs = build_pairs(recipe.data, start.tokenizer, seed=recipe.seed)
            lengths = [len(row.chosen_ids) + len(row.rejected_ids) for row in pairs.train]
            score = f"{recipe.score} x {recipe.beta:g}" if recipe.score == "likelihood" else recipe.score
            told = PlanRow("score", score, "the time leaves out sampling for its scale")
            return [*_train_rows(recipe.train, start, lengths, recipe.model), told]
        case PpoRecipe() as recipe:
            return _ppo_rows(recipe, start)
        case EvaluateRecipe() as recipe:
            return _evaluate_rows(recipe, start)
        case _:
            raise RecipeError(Problem(str(stage.path), "nothing to plan", "name a stage recipe"))


def _pretrain_rows(recipe: PretrainRecipe, start: Start) -> list[PlanRow]:
    documents = build_documents(recipe.data, seed=recipe.seed)
    blocks = pack_blocks(documents, start.tokenizer, recipe)
    curriculum, slots = curriculum_of(recipe, blocks), training_slots(recipe, blocks)
    placed = curriculum.rows_placed(slots) if curriculum else 0
    lengths = [recipe.data.block_length] * len(blocks.train)
    rows = _train_rows(recipe.train, start, lengths, None, others=placed)
    return [*rows, _curriculum_row(curriculum, slots)] if curriculum else rows


def _curriculum_row(curriculum: Curriculum, slots: int) -> PlanRow:
    placed = curriculum.rows_placed(slots)
    left_out = curriculum.rows - placed
    why = f"rows, once each, in the first {curriculum.until:.0%} of the steps"
    fate = f"; {left_out:,} more are left out, for they may take half of these steps" if left_out else ""
    return PlanRow("curriculum", f"{placed:,}", why + fate)


def _train_rows(
    train: TrainSpec, start: Start, lengths: Sequence[int], spec: ModelSpec | None, *, others: int = 0
) -> list[PlanRow]:
    """The plan of a supervised stage; `others` rows, not among those of these lengths, take some of its slots."""
    steps = optimiser_steps(train, rows=len(lengths))
    mean = sum(lengths) / max(len(lengths), 1)
    per_pass = train.rows_per_device or train.rows_per_step
    precision = resolve_precision(train.precision)
    model = start.random_model()
    seconds = _seconds_per_pass(model, rows=per_pass, tokens=round(mean), precision=precision)
    tokens = round(steps * train.rows_per_step * mean)
    memory = _gib(_train_bytes(start, spec, tokens=round(per_pass * mean)))
    epochs = (steps * train.rows_per_step - others) / len(lengths)
    longest = max(lengths, default=0)
    return [
        PlanRow("rows", f"{len(lengths):,}", f"{mean:.0f} tokens each on average, {longest} at most"),
        PlanRow("steps", f"{steps:,}", f"{train.rows_per_step} rows each: {epochs:.2f} epochs"),
        PlanRow("tokens", f"{tokens:,}", "read in all, padding aside"),
        PlanRow("parameters", f"{start.parameters:,}", _trained(start, spec)),
        PlanRow("memory", memory, "weights, optimiser and activations"),
        _time_row(seconds, passes=steps * (train.rows_per_step // per_pass)),
        PlanRow("precision", precision.name, precision.reason),
    ]


def _ppo_rows(recipe: PpoRecipe, start: Start) -> list[PlanRow]:
    data = recipe.data
    prompts = build_prompts(
        data.train,
        start.tokenizer,
        max_prompt_tokens=data.max_prompt_tokens,
        seed=recipe.seed,
        withhold=data.holdout,
    ).rows
    ppo = recipe.ppo
    episodes = ppo.prompts_per_step * ppo.samples_per_prompt
    mean = sum(len(row.input_ids) for row in prompts) / len(prompts)
    tokens = round(mean + recipe.sampling.max_new_tokens)
    rows = ppo.rows_per_device or episodes // ppo.minibatches
    updates = ppo.epochs * ppo.minibatches
    seconds = _seconds_per_ppo_step(recipe, start, prompts, tokens=tokens)
    frozen = 2 * start.parameters * FLOAT_BYTES  # reference and reward, at most
    memory = _gib(_train_bytes(start, recipe.model, tokens=rows * tokens) + frozen)
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
        PlanRow("parameters", f"{start.parameters:,}", _trained(start, recipe.model)),
        PlanRow("memory", memory, "policy, reference, reward"),
        _time_row(seconds, passes=ppo.steps, why="at most: as if no response ended early"),
        PlanRow("precision", precision.name, precision.reason),
    ]


def _seconds_per_ppo_step(
    recipe: PpoRecipe, start: Start, prompts: Sequence[PromptRow], *, tokens: int
) -> float | None:
    """One rollout of a random model, which rarely ends a response, and the passes of the update."""
    model = start.random_model()
    if model is None:
        return None
    ppo, sampling = recipe.ppo, recipe.sampling
    episodes = ppo.prompts_per_step * ppo.samples_per_prompt
    began = time.perf_counter()
    sample_responses(
        model,
        [row.input_ids for row in prompts[:episodes]],
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        eos_id=-1,  # no answer ends early
        pad_id=start.tokenizer.pad_token_id or 0,
    )
    rollout = time.perf_counter() - began
    rows = episodes // ppo.minibatches
    update = _seconds_per_pass(model, rows=rows, tokens=tokens, precision=Precision("fp32", ""))
    assert update is not None
    return rollout + update * ppo.epochs * ppo.minibatches


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
    seconds = _seconds_per_answer(recipe, start)
    why = f"at most, for {answers:,} answers, as if none ended early; documents and pairs come on top"
    return [*rows, _time_row(seconds, passes=answers, why=why)]


def _answers(recipe: EvaluateRecipe, *, tasks: int, prompts: int) -> int:
    """How many answers are drawn in all: greedy and sampled ones, few-shot ones in every style."""
    suites, models = recipe.suites, len(recipe.models)
    more_of_reference = max(suites.best_of - suites.samples_per_prompt, 0) if recipe.reference else 0
    few_shot = len(suites.few_shot) * len(suites.shots) * len(STYLES)
    return tasks * (models + few_shot) + prompts * (
        models * (1 + suites.samples_per_prompt) + more_of_reference
    )


def _seconds_per_answer(recipe: EvaluateRecipe, start: Start) -> float | None:
    """A batch of short prompts answered by a random model, which rarely ends an answer."""
    model = start.random_model()
    if model is None:
        return None
    room = prompt_room(model, recipe.sampling.max_new_tokens)
    ids_BT = torch.randint(0, start.vocab_size, (SAMPLE_BATCH, min(TYPICAL_PROMPT_TOKENS, room)))
    began = time.perf_counter()
    sample_responses(
        model,
        ids_BT.tolist(),
        max_new_tokens=recipe.sampling.max_new_tokens,
        temperature=recipe.sampling.temperature,
        eos_id=-1,  # no answer ends early, and nothing is padded
        pad_id=0,
    )
    return (time.perf_counter() - began) / SAMPLE_BATCH


def _count(sources: Sequence[SourceSpec], kind: Kind) -> int:
    return sum(len(read_source(source, kind).rows) for source in sources)


def _trained(start: Start, spec: ModelSpec | None) -> str:
    if spec is None or (spec.lora is None and (spec.merge or not start.adapter)):
        return "all of them trained"
    return f"{start.adapter_parameters(spec):,} of an adapter are trained"


def _train_bytes(start: Start, spec: ModelSpec | None, *, tokens: int) -> int:
    full = spec is None or (spec.lora is None and (spec.merge or not start.adapter))
    trained = start.parameters if full or spec is None else start.adapter_parameters(spec)
    activations = (
        tokens * start.layers * start.hidden_size * ACTIVATION_FLOATS + 2 * tokens * start.vocab_size
    )
    return FLOAT_BYTES * (start.parameters + ADAM_FLOATS * trained + activations)


def _seconds_per_pass(
    model: PreTrainedModel | None, *, rows: int, tokens: int, precision: Precision
) -> float | None:
    """One forward and backward pass over (rows, tokens) random ids: the second of two, the first warms up."""
    if model is None:
        return None
    ids_BT = torch.randint(0, model.config.vocab_size, (rows, max(tokens, 2)), device=model.device)
    for _ in range(2):
        began = time.perf_counter()
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision.name == "bf16"):
            loss = model(input_ids=ids_BT, labels=ids_BT).loss
        loss.backward()
        model.zero_grad()
    return time.perf_counter() - began


def _time_row(
    seconds: float | None, *, passes: int, why: str = "timed on this machine as it is now"
) -> PlanRow:
    if seconds is None:
        return PlanRow(
            "time", "not known", f"models of over {TIMED_BELOW:,} parameters are not built to be timed"
        )
    total = seconds * passes
    return PlanRow("time", f"{total / 60:.1f} min" if total >= 60 else f"{total:.0f} s", why)


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
