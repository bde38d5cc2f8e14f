"""What a run of PPO works with, opened once before its first step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from aligner.data.build import build_prompts, build_training_prompts
from aligner.data.tokens import PromptRow
from aligner.models.heads import ValueHead
from aligner.models.load import LoadedModel, load_model
from aligner.models.sample import prompt_room
from aligner.models.wrapped import device_of, text_config
from aligner.recipe.ppo import PpoRecipe
from aligner.rl.actors import Drawing, LanguageActor, build_optimizer
from aligner.rl.critic import value_head_of
from aligner.rl.rewards import Rewards, load_functions, load_rewards
from aligner.rl.rollout import prompts_for
from aligner.rl.state import Progress
from aligner.run.folder import RunFolder
from aligner.run.seed import seed_everything
from aligner.stages.ppo_watch import Watch


@dataclass(frozen=True)
class Job:
    """Everything a run of PPO works with."""

    recipe: PpoRecipe
    run: RunFolder
    loaded: LoadedModel
    policy: LanguageActor
    reference: LanguageActor
    rewards: Rewards
    prompts: list[PromptRow]
    watch: Watch | None
    optimizer: torch.optim.Optimizer
    progress: Progress


def prepare(recipe: PpoRecipe, run: RunFolder) -> Job:
    """Open the doors: rewards (their mistakes cost nothing yet), model, prompts that leave room for an answer."""
    load_functions(recipe.reward)
    seed_everything(recipe.seed)
    loaded = load_model(recipe.model)
    tokenizer = loaded.tokenizer
    rewards = load_rewards(recipe.reward, tokenizer)
    data = recipe.data
    limit = min(data.max_prompt_tokens, prompt_room(loaded.model, recipe.sampling.max_new_tokens))
    train = build_training_prompts(data, tokenizer, max_prompt_tokens=limit, seed=recipe.seed)
    held = (
        build_prompts(data.holdout, tokenizer, max_prompt_tokens=limit, seed=recipe.seed, clean=data.clean)
        if data.holdout
        else None
    )
    reports = {"train": train.report.to_json()} | ({"holdout": held.report.to_json()} if held else {})
    run.start(parents={"base": loaded.identity} | rewards.identities(), data=reports, seed=recipe.seed)
    policy = new_policy(recipe, loaded.model, tokenizer)
    if recipe.ppo.value_init == "reward":
        policy.value_head.load_state_dict(value_head_of(rewards, loaded.model).state_dict())
    reference = policy.reference()
    optimizer = build_optimizer(policy, recipe.ppo)
    watched = held.rows[: data.holdout_rows] if held else []
    watch = Watch(watched, rewards, reference, recipe.seed, recipe.ppo.rows_per_device) if watched else None
    progress = Progress(recipe.ppo.kl_coef)
    return Job(recipe, run, loaded, policy, reference, rewards, train.rows, watch, optimizer, progress)


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


def rows_for(job: Job, step: int) -> list[PromptRow]:
    """The prompts of one step, each as often as the recipe samples it."""
    spec = job.recipe.ppo
    chosen = prompts_for(
        step, num_prompts=len(job.prompts), prompts_per_step=spec.prompts_per_step, seed=job.recipe.seed
    )
    return [job.prompts[i] for i in chosen for _ in range(spec.samples_per_prompt)]
