"""What `aligner check` says of stages in which a model answers or reads, and of those that learn from answers."""

from __future__ import annotations

from collections.abc import Sequence

from aligner.check_rewards import APART, SHARED
from aligner.data.bootstrap.tasks import build_seed_tasks
from aligner.data.build import (
    build_training_prompts,
)
from aligner.data.plan import report_table
from aligner.data.readers import read_source
from aligner.data.readers.kinds import Kind
from aligner.data.tokens import PromptRow
from aligner.estimates import (
    answers_drawn,
    seconds_per_answer,
    seconds_per_ppo_step,
    time_row,
    trained_weights,
)
from aligner.memory_rollouts import rollout_memory
from aligner.recipe.data import SourceSpec
from aligner.recipe.evaluate import EvaluateRecipe
from aligner.recipe.group import GroupRecipe
from aligner.recipe.perplexity import PerplexityRecipe
from aligner.recipe.plan import PlanRow, StageParts
from aligner.recipe.ppo import PpoRecipe, PtxSpec
from aligner.recipe.stages import SelfInstructRecipe
from aligner.run.home import rows_home
from aligner.run.machine import room_to_train
from aligner.stages.perplexity import read_texts
from aligner.stages.stage import Precision, resolve_precision
from aligner.start import Start


def ppo_plan(recipe: PpoRecipe | GroupRecipe, start: Start, rewards: Sequence[PlanRow]) -> StageParts:
    """Prompts, steps and updates, with the memory and time that they take; `rewards`: a row of each reward model."""
    data = recipe.data
    built = build_training_prompts(data, start.tokenizer, seed=recipe.seed, keep=rows_home())
    told = [row.value for row in rewards]
    memory = rollout_memory(
        recipe,
        start,
        prompt_tokens=max(len(row.input_ids) for row in built.rows),
        shared=told.count(SHARED),
        apart=told.count(APART),
    )
    rows = _ppo_rows(recipe, start, built.rows, memory.row(room_to_train(), recipe.stage))
    return [*rows, *rewards], (report_table(built.report),)


def _ppo_rows(
    recipe: PpoRecipe | GroupRecipe, start: Start, prompts: Sequence[PromptRow], memory: PlanRow
) -> list[PlanRow]:
    ppo = recipe.numbers
    ptx = recipe.ptx if isinstance(recipe, PpoRecipe) else None
    episodes = ppo.prompts_per_step * ppo.samples_per_prompt
    mean = sum(len(row.input_ids) for row in prompts) / len(prompts)
    tokens = round(mean + recipe.sampling.max_new_tokens)
    updates = ppo.epochs * ppo.minibatches
    seconds = seconds_per_ppo_step(recipe, start, prompts, tokens=tokens)
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
        *([_ptx_row(ptx, updates=ppo.steps * updates)] if ptx else []),
        PlanRow("parameters", f"{start.parameters:,}", trained_weights(start, recipe.model)),
        memory,
        time_row(seconds, passes=ppo.steps, why="at most: as if no response ended early"),
        PlanRow("precision", precision.name, precision.reason),
    ]


def _ptx_row(ptx: PtxSpec, *, updates: int) -> PlanRow:
    why = f"of {ptx.block_length} tokens, {ptx.rows_per_step} an update at most; they come on top of the time"
    return PlanRow("ptx blocks", f"{updates * ptx.rows_per_step:,}", why)


def evaluate_rows(recipe: EvaluateRecipe, start: Start) -> list[PlanRow]:
    """What each suite holds, and the answers that are drawn for all of them."""
    suites = recipe.suites
    rows = [PlanRow("models", ", ".join(recipe.models))]
    if suites.documents:
        rows.append(PlanRow("documents", f"{count_rows(suites.documents, 'document'):,}", "held-out text"))
    tasks = {name: count_rows(sources, "prompt") for name, sources in suites.tasks.items()}
    rows += [PlanRow(name, f"{count:,}", "prompts, one greedy answer each") for name, count in tasks.items()]
    if suites.pairs:
        rows.append(PlanRow("pairs", f"{count_rows(suites.pairs, 'pair'):,}", "of answers"))
    asked = min(count_rows(suites.prompts, "prompt"), suites.prompt_rows)
    if asked:
        why = f"prompts, {suites.samples_per_prompt} sampled answers and a greedy one each"
        rows.append(PlanRow("prompts", f"{asked:,}", why))
    answers = answers_drawn(recipe, tasks=sum(tasks.values()), prompts=asked)
    if not answers:
        return rows
    seconds = seconds_per_answer(recipe, start)
    why = f"at most, for {answers:,} answers, as if none ended early; documents and pairs come on top"
    return [*rows, time_row(seconds, passes=answers, why=why)]


def self_instruct_plan(recipe: SelfInstructRecipe, start: Start) -> StageParts:
    """The seeds, what is asked for, and a guess at the time."""
    spec = recipe.selfinstruct
    built = build_seed_tasks(recipe.seed_tasks, start.tokenizer, seed=recipe.seed)
    labels = sum(task.classification for task in built.tasks)
    rows = [
        PlanRow("seed tasks", f"{len(built.tasks):,}", f"{labels} of them classifications"),
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


def perplexity_plan(recipe: PerplexityRecipe, start: Start) -> StageParts:
    """The texts that are measured, each once."""
    texts = read_texts(recipe)
    size = sum(len(document.text.encode()) for document in texts.documents.values())
    rows = [
        PlanRow(
            "texts",
            f"{len(texts.documents):,}",
            f"different ones of {texts.rows:,} rows, {size:,} bytes in all",
        ),
        PlanRow("parameters", f"{start.parameters:,}", "none of them trained"),
    ]
    return rows, (report_table(texts.report),)


def count_rows(sources: Sequence[SourceSpec], kind: Kind) -> int:
    """Rows that are read of all the sources."""
    return sum(len(read_source(source, kind).rows) for source in sources)
