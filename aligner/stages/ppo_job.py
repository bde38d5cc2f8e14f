"""What a run of PPO works with, opened once before its first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from aligner.data.build import build_documents
from aligner.data.packing import Block, pack_documents
from aligner.data.report import DataReport
from aligner.errors import DataError, ModelError, Problem, RecipeError
from aligner.models.backbone import Backbone
from aligner.models.heads import ValueHead
from aligner.models.load import LoadedModel
from aligner.models.wrapped import context_length, device_of, text_config
from aligner.recipe.data import PretrainDataSpec
from aligner.recipe.ppo import PpoRecipe
from aligner.rl.actors import Drawing, LanguageActor, build_optimizer
from aligner.rl.critic import value_head_of, value_trunk_of
from aligner.rl.guards import Guards
from aligner.rl.ptx import PtxMix
from aligner.rl.ranks import Ranks
from aligner.rl.rewards import Rewards
from aligner.rl.state import Progress
from aligner.run.folder import RunFolder
from aligner.run.progress import say
from aligner.stages.ppo_best import BestPolicy
from aligner.stages.rollouts import RolloutJob, open_roles, watch_of


@dataclass(frozen=True)
class Job(RolloutJob):
    """Everything a run of PPO works with."""

    recipe: PpoRecipe
    optimizer: torch.optim.Optimizer
    progress: Progress
    ptx: PtxMix | None
    guards: Guards
    best: BestPolicy


def prepare(recipe: PpoRecipe, run: RunFolder, ranks: Ranks) -> Job:
    """Open everything, start the run's record, and give the critic its beginning."""
    opened = open_roles(recipe, lambda loaded: new_policy(recipe, loaded.model, loaded.tokenizer))
    loaded, policy, reference, backbone, rewards, prompts = opened
    text = build_text(recipe, loaded) if recipe.ptx else None
    reports = prompts.reports() | ({"ptx": text.report.to_json()} if text else {})
    run.start(parents={"base": loaded.identity} | rewards.identities(), data=reports, seed=recipe.seed)
    start_critic(recipe, policy, backbone, rewards)
    optimizer = build_optimizer(policy, recipe.ppo)
    watch = watch_of(recipe, prompts.holdout, rewards, reference, ranks)
    if recipe.ppo.keep_best == "gold" and not (watch and any(row.prompt.gold for row in watch.rows)):
        fault = "no held-out prompt has a gold answer to compare looks by"
        raise RecipeError(Problem("ppo.keep_best", fault, "write proxy, or hold out prompts with gold"))
    progress = Progress(recipe.ppo.kl_coef)
    ptx = ptx_mix(recipe, policy, text.blocks, progress, ranks) if text else None
    return Job(
        recipe=recipe,
        run=run,
        ranks=ranks,
        loaded=loaded,
        policy=policy,
        reference=reference,
        rewards=rewards,
        prompts=prompts.train.rows,
        watch=watch,
        optimizer=optimizer,
        progress=progress,
        ptx=ptx,
        guards=Guards(recipe.ppo.guards),
        best=BestPolicy(progress, policy.named_parameters()),
    )


@dataclass(frozen=True)
class Text:
    """What the policy goes on learning beside the reward."""

    blocks: list[Block]
    report: DataReport


def build_text(recipe: PpoRecipe, loaded: LoadedModel) -> Text:
    """The documents of the PTX mix in blocks; what evaluations hold is left out of them as out of the prompts.

    DataError where they do not fill one block, ModelError where the model cannot read so long a one.
    """
    assert recipe.ptx is not None
    spec, asked = recipe.ptx, recipe.data.decontaminate
    against = asked.model_copy(update={"holdout": False}) if asked and asked.against else None
    data = PretrainDataSpec(train=spec.sources, block_length=spec.block_length, decontaminate=against)
    documents = build_documents(data, seed=recipe.seed)
    if spec.block_length > (longest := context_length(loaded.model)):
        fault = f"a block of {spec.block_length} tokens exceeds the model's context of {longest}"
        raise ModelError(Problem("ptx.block_length", fault, f"use at most {longest}"))
    blocks = pack_documents(documents.train, loaded.tokenizer, block_length=spec.block_length, isolate=False)
    if not blocks:
        fault = f"the documents do not fill one block of {spec.block_length} tokens"
        raise DataError(Problem("ptx.sources", fault, "give more text, or a smaller ptx.block_length"))
    return Text(blocks, documents.report)


def ptx_mix(
    recipe: PpoRecipe, policy: LanguageActor, blocks: Sequence[Block], progress: Progress, ranks: Ranks
) -> PtxMix:
    """The blocks as tensors where the policy is."""
    assert recipe.ptx is not None
    return PtxMix(
        model=policy.model,
        ids_NT=torch.tensor([block.input_ids for block in blocks], device=device_of(policy.model)),
        progress=progress,
        coef=recipe.ptx.coef,
        rows_per_step=recipe.ptx.rows_per_step,
        rows_per_device=recipe.ppo.rows_per_device,
        seed=recipe.seed,
        autocast=policy.drawing.autocast,
        ranks=ranks,
    )


def new_policy(
    recipe: PpoRecipe, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase
) -> LanguageActor:
    """The start model with a value head that says 0 everywhere."""
    drawing = Drawing(
        max_new_tokens=recipe.sampling.max_new_tokens,
        temperature=recipe.sampling.temperature,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        autocast=recipe.ppo.precision == "bf16",
    )
    head = ValueHead(text_config(model).hidden_size).to(device_of(model))
    return LanguageActor(model, head, drawing, entropy_gradient=recipe.ppo.entropy_coef > 0)


def start_critic(recipe: PpoRecipe, policy: LanguageActor, backbone: Backbone, rewards: Rewards) -> None:
    """Give the critic its trunk, where it has one of its own, and both the beginning that the recipe names."""
    spec = recipe.ppo
    if spec.value == "adapter":
        source = rewards if spec.value_init == "reward" else None
        policy.value_trunk = value_trunk_of(backbone, recipe.model.lora, source)
        if source and any(reward.model.apart for reward in source.models().values()):
            say(
                "ppo.value_init: the critic takes the reward model's head alone, for that is a model of its own"
            )
    if spec.value_init == "reward":
        policy.value_head.load_state_dict(value_head_of(rewards, policy.model).state_dict())
