"""How much memory it takes to learn from a policy's own answers: its roles, their optimiser, sampling, the update."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor, nn

from aligner.memory import (
    FLOAT_BYTES,
    Kept,
    Layers,
    Memory,
    Pass,
    in_memory,
    kept_by,
    linear_weights,
    training_kept,
    weight_bytes,
    work_of,
)
from aligner.models.backbone import Backbone, bare
from aligner.models.fast import hasten
from aligner.models.heads import ValueHead
from aligner.models.logprobs import MOST_LOGITS
from aligner.models.wrapped import device_of
from aligner.recipe.group import GroupRecipe, GroupSpec
from aligner.recipe.model import LoraSpec, ModelSpec
from aligner.recipe.ppo import PpoRecipe
from aligner.rl.actors import Drawing, LanguageActor
from aligner.rl.critic import value_trunk_of
from aligner.rl.rollout import MANY_TOKENS, PASS_TOKENS
from aligner.stages.stage import Precision
from aligner.start import Start

SAMPLED_AT_ONCE = 256  # rows, as `sample_responses` takes them
CHOICE_BYTES = (
    20  # per row and word of the vocabulary: logits, scaled, their exponentials, and sums in float64
)
BF16_BYTES = 2
FP32 = Precision("fp32", "")


def rollout_memory(
    recipe: PpoRecipe | GroupRecipe, start: Start, *, prompt_tokens: int, shared: int, apart: int
) -> Memory:
    """What such a stage holds, its longest prompt having so many tokens.

    shared, apart: reward models on the policy's backbone, and those that are models of their own, which are taken to
    be as large.
    """
    learns_adapter = start.trains_adapter(recipe.model)
    policy = start.adapter_parameters(recipe.model) if learns_adapter else start.parameters
    critic = start.adapter_parameters(critic_spec(recipe)) if has_trunk(recipe) else 0
    best = policy + critic if isinstance(recipe, PpoRecipe) and recipe.ppo.keep_best else 0
    others = policy + critic + best  # the reference first: a copy of what is trained
    if shared:
        others += shared * start.adapter_parameters(critic_spec(recipe))
    weights = weight_bytes(start, recipe.model) + FLOAT_BYTES * others
    work = {
        "sampling": sampling_bytes(recipe, start, prompt_tokens),
        **update_bytes(recipe, start, prompt_tokens, trained=policy + critic),
    }
    busiest = max(work, key=work.__getitem__)
    moments = 2 * FLOAT_BYTES * (policy + critic)
    guessed = FLOAT_BYTES * apart * start.parameters
    return Memory(weights, moments, work[busiest], busiest, guessed)


def has_trunk(recipe: PpoRecipe | GroupRecipe) -> bool:
    """Whether the critic reads hidden states of its own."""
    return isinstance(recipe, PpoRecipe) and recipe.ppo.value == "adapter"


def critic_spec(recipe: PpoRecipe | GroupRecipe) -> ModelSpec:
    """The model under an adapter as `value_trunk_of` makes it."""
    return recipe.model.model_copy(update={"lora": recipe.model.lora or LoraSpec()})


def sampling_bytes(recipe: PpoRecipe | GroupRecipe, start: Start, prompt_tokens: int) -> int:
    """Keys and values of the answers drawn at once, the weights added up for them, and a word's choice."""
    number = BF16_BYTES if recipe.numbers.precision == "bf16" else FLOAT_BYTES
    spec, config = recipe.model, start.config.get_text_config(decoder=True)
    rows = min(recipe.numbers.prompts_per_step * recipe.numbers.samples_per_prompt, SAMPLED_AT_ONCE)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or start.hidden_size // config.num_attention_heads)
    tokens = rows * (prompt_tokens + recipe.sampling.max_new_tokens)
    summed = start.trains_adapter(spec) and spec.quantize == "none"
    held = linear_weights(start) if summed or number == BF16_BYTES else 0
    cache = 2 * start.layers * width * tokens
    return number * (cache + held) + CHOICE_BYTES * rows * start.vocab_size


def update_bytes(
    recipe: PpoRecipe | GroupRecipe, start: Start, prompt_tokens: int, *, trained: int
) -> dict[str, int]:
    """The update's passes by what they are: over answers, and over text."""
    numbers, new = recipe.numbers, recipe.sampling.max_new_tokens
    learnt = learnt_rows(recipe)
    one = Pass(rows_of_pass(recipe, prompt_tokens + new), prompt_tokens + new, new)
    logits = FLOAT_BYTES * min(one.rows * new * start.vocab_size, MOST_LOGITS)
    ptx = recipe.ptx if isinstance(recipe, PpoRecipe) else None
    passes = ceil(learnt / one.rows)
    layers: Layers = "fast" if recipe.model.quantize == "none" else "peft"
    kept, gradients = update_kept(recipe, start, one), FLOAT_BYTES * trained
    found = {
        f"a pass over {one}": work_of(
            in_memory(kept.of(one.rows), layers), logits=logits, gradients=gradients, passes=passes
        )
    }
    if ptx:
        text = Pass(numbers.rows_per_device or ptx.rows_per_step, ptx.block_length, ptx.block_length)
        logits = 3 * FLOAT_BYTES * text.rows * text.scored * start.vocab_size
        model = start.random_model()
        adapted = hasten(start.adapted(model, recipe.model)) if model is not None else None
        kept = training_kept(start, adapted, text, precision_of(recipe), head=False)
        found[f"a pass over text, {text}"] = in_memory(kept.of(text.rows), layers) + logits + gradients
    return found


def learnt_rows(recipe: PpoRecipe | GroupRecipe) -> int:
    """Answers that an optimiser step learns from."""
    numbers = recipe.numbers
    whole = numbers.learnt_per_step if isinstance(numbers, GroupSpec) else numbers.episodes_per_step
    return whole // numbers.minibatches


def rows_of_pass(recipe: PpoRecipe | GroupRecipe, tokens: int) -> int:
    """Those of them that are read at once, of so many tokens each: see `aligner.rl.rollout.passes`."""
    learnt = learnt_rows(recipe)
    if isinstance(recipe, GroupRecipe) or recipe.ppo.rows_per_device:
        return min(recipe.numbers.rows_per_device or learnt, learnt)
    budget = MANY_TOKENS if torch.cuda.is_available() else PASS_TOKENS["cpu"]
    return max(1, min(learnt, budget // tokens))


def precision_of(recipe: PpoRecipe | GroupRecipe) -> Precision:
    """In which numbers the update computes; `auto` is float32."""
    return Precision("bf16", "") if recipe.numbers.precision == "bf16" else FP32


def update_kept(recipe: PpoRecipe | GroupRecipe, start: Start, one: Pass) -> Kept:
    """What a pass keeps, the critic's own with it."""
    model = start.random_model()
    if model is None:
        kept = training_kept(start, None, one, FP32, head=False)
        trunk = training_kept(start, None, one, FP32, head=True) if has_trunk(recipe) else Kept(0, 0)
        return Kept(0, kept.per_row + trunk.per_row)
    drawing = Drawing(one.scored, 1.0, eos_id=0, pad_id=0, autocast=recipe.numbers.precision == "bf16")
    device, head = device_of(model), ValueHead(start.hidden_size).to(device_of(model))
    actor = LanguageActor(start.adapted(model, recipe.model), head, drawing)
    if has_trunk(recipe):
        backbone = Backbone(bare(actor.reference().model), "", None, False)
        actor.value_trunk = value_trunk_of(backbone, recipe.model.lora)

    def loss(rows: int) -> Tensor:
        ids_BR = torch.zeros((rows, one.scored), dtype=torch.long, device=device)
        prompts = [[0] * (one.tokens - one.scored)] * rows
        seen = actor.evaluate(prompts, ids_BR, torch.ones_like(ids_BR, dtype=torch.bool))
        return seen.logprobs_BR.sum() + seen.values_BR.sum()

    return kept_by(loss, nn.ModuleList([part for part in (actor.model, actor.value_trunk) if part]))
