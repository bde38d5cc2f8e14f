"""How long a stage would take and how much memory, from a few passes of a random model and from its shape."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import ceil

import torch
from transformers import PreTrainedModel

from aligner.data.tokens import PromptRow
from aligner.evals.suites import SAMPLE_BATCH
from aligner.evals.tasks import STYLES
from aligner.memory_rollouts import has_trunk, learnt_rows, rows_of_pass
from aligner.models.fast import hasten
from aligner.models.sample import prompt_room, sample_responses
from aligner.recipe.evaluate import EvaluateRecipe
from aligner.recipe.group import GroupRecipe
from aligner.recipe.model import ModelSpec
from aligner.recipe.plan import PlanRow
from aligner.recipe.ppo import PpoRecipe
from aligner.recipe.stages import SelfInstructRecipe
from aligner.stages.stage import Precision
from aligner.start import Start

TYPICAL_PROMPT_TOKENS = 48  # of an evaluation's questions, for its time
TIMED_BELOW = 200_000_000  # parameters; larger models are not built just to be timed


def trained_weights(start: Start, spec: ModelSpec | None) -> str:
    """In words, which of the weights are trained."""
    if spec is None or not start.trains_adapter(spec):
        return "all of them trained"
    return f"{start.adapter_parameters(spec):,} of an adapter are trained"


def seconds_per_pass(
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


def time_row(
    seconds: float | None, *, passes: int, why: str = "timed on this machine as it is now"
) -> PlanRow:
    """The time of so many passes, where one was timed."""
    if seconds is None:
        return PlanRow(
            "time", "not known", f"models of over {TIMED_BELOW:,} parameters are not built to be timed"
        )
    total = seconds * passes
    return PlanRow("time", f"{total / 60:.1f} min" if total >= 60 else f"{max(total, 1):.0f} s", why)


def seconds_per_ppo_step(
    recipe: PpoRecipe | GroupRecipe, start: Start, prompts: Sequence[PromptRow], *, tokens: int
) -> float | None:
    """One rollout of a random model, which rarely ends a response, and the passes of the update."""
    model = start.random_model()
    if model is None:
        return None
    hasten(model)  # as the stage does
    ppo = recipe.numbers
    sampling = recipe.sampling
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
    learnt = learnt_rows(recipe)
    rows = rows_of_pass(recipe, tokens)
    update = seconds_per_pass(model, rows=rows, tokens=tokens, precision=Precision("fp32", ""))
    assert update is not None
    passes = ppo.epochs * ppo.minibatches * ceil(learnt / rows) * (2 if has_trunk(recipe) else 1)
    return rollout + update * passes


def seconds_per_answer(recipe: EvaluateRecipe | SelfInstructRecipe, start: Start) -> float | None:
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


def answers_drawn(recipe: EvaluateRecipe, *, tasks: int, prompts: int) -> int:
    """How many answers are drawn in all: greedy and sampled ones, few-shot ones in every style."""
    suites, models = recipe.suites, len(recipe.models)
    more_of_reference = max(suites.best_of - suites.samples_per_prompt, 0) if recipe.reference else 0
    few_shot = len(suites.few_shot) * len(suites.shots) * len(STYLES)
    return tasks * (models + few_shot) + prompts * (
        models * (1 + suites.samples_per_prompt) + more_of_reference
    )
