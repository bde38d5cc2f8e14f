"""PPO: the policy answers prompts, and what scores well is made likelier, not far from where the policy began.

Ziegler et al. 2019 (arXiv:1909.08593), Stiennon et al. 2020 (arXiv:2009.01325), Ouyang et al. 2022 (arXiv:2203.02155).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import save
from transformers import PreTrainedTokenizerBase

from aligner.data.build import build_prompts, build_training_prompts
from aligner.data.tokens import PromptRow
from aligner.errors import Interrupted, Problem
from aligner.models.heads import ValueHead
from aligner.models.load import LoadedModel, load_model, save_model
from aligner.models.sample import prompt_room
from aligner.models.wrapped import device_of, text_config
from aligner.recipe.ppo import PpoRecipe
from aligner.rl.actors import Drawing, LanguageActor, build_optimizer
from aligner.rl.rewards import Answered, Rewards, load_functions, load_rewards
from aligner.rl.rollout import prompts_for
from aligner.rl.score import Scored, score
from aligner.rl.seeds import generator
from aligner.rl.state import restore, training_state
from aligner.rl.update import UpdateStats, evaluate_in_parts, update
from aligner.run.checkpoint import load_newest, save_checkpoint
from aligner.run.folder import RunFolder
from aligner.run.progress import progress, say
from aligner.run.seed import seed_everything
from aligner.run.write import write_bytes
from aligner.stages.ppo_watch import Watch, gold_rewards, mean_of_known, text_metrics
from aligner.stages.stage import StageResult
from aligner.stages.stop import gentle_stop


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


def train_ppo(recipe: PpoRecipe, run: RunFolder) -> StageResult:
    """Reinforcement learning from the recipe's rewards; resumes from the newest checkpoint.

    Raises Interrupted (with a checkpoint saved) after Ctrl-C, TrainingError when a loss is no number or the policy
    is not the one that sampled.
    """
    job = prepare(recipe, run)
    steps = recipe.ppo.steps
    done = resume(job)
    with progress("ppo", steps, done=done) as bar, gentle_stop() as stop:
        if done == 0:
            look(job, 0)
        for step in range(done, steps):
            figures = train_step(job, step)
            run.metrics.log(step + 1, figures)
            bar.advance(1, reward=figures["ppo/proxy_reward"], kl=figures["kl/ref_nats_per_response"])
            last = step + 1 == steps
            if last or (step + 1) % recipe.ppo.evaluate_every == 0:
                look(job, step + 1)
            if stop.asked or is_due(step + 1, recipe.ppo.checkpoint_every):
                save_step(job, step + 1)
            if stop.asked and not last:
                fault = f"stopped at step {step + 1} of {steps}; a checkpoint is saved"
                raise Interrupted(Problem(str(run.path), fault, "the same command goes on from there"))
    return finish(job)


def train_step(job: Job, step: int) -> dict[str, float]:
    """Prompts, rollout, score, update; what happened, for metrics.jsonl."""
    recipe, spec, began = job.recipe, job.recipe.ppo, time.perf_counter()
    rows = rows_for(job, step)
    rollout = job.policy.sample([row.input_ids for row in rows], generator(recipe.seed, "rollout", step))
    answered = job.rewards.answered([row.prompt for row in rows], rollout)
    scores_B = job.rewards(answered)
    reference_BR = evaluate_in_parts(job.reference, rollout, rows_per_device=spec.rows_per_device).logprobs_BR
    scored = score(rollout, scores_B, reference_BR, kl_coef=spec.kl_coef, missing_eos=spec.missing_eos)
    stats = update(
        job.policy,
        job.optimizer,
        scored,
        spec,
        seed=recipe.seed,
        step=step,
        same_numerics=not job.policy.drawing.autocast,
    )
    figures = {
        "ppo/proxy_reward": float(scores_B.mean()),
        "ppo/learning_rate": job.optimizer.param_groups[0]["lr"],
    }
    figures["ppo/tokens_per_second"] = rollout.num_tokens / (time.perf_counter() - began)
    return figures | step_metrics(answered, scored, stats, kl_coef=spec.kl_coef)


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
    reference = policy.reference()
    optimizer = build_optimizer(policy, recipe.ppo)
    watched = held.rows[: data.holdout_rows] if held else []
    watch = Watch(watched, rewards, reference, recipe.seed, recipe.ppo.rows_per_device) if watched else None
    return Job(recipe, run, loaded, policy, reference, rewards, train.rows, watch, optimizer)


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
    return LanguageActor(model, ValueHead(text_config(model).hidden_size).to(device_of(model)), drawing)


def rows_for(job: Job, step: int) -> list[PromptRow]:
    """The prompts of one step, each as often as the recipe samples it."""
    spec = job.recipe.ppo
    chosen = prompts_for(
        step, num_prompts=len(job.prompts), prompts_per_step=spec.prompts_per_step, seed=job.recipe.seed
    )
    return [job.prompts[i] for i in chosen for _ in range(spec.samples_per_prompt)]


def step_metrics(
    answered: Answered, scored: Scored, stats: UpdateStats, *, kl_coef: float
) -> dict[str, float]:
    """Figures of one step on its own responses."""
    gold = mean_of_known(gold_rewards(answered))
    return {
        **{f"ppo/{name}": value for name, value in stats._asdict().items()},
        **text_metrics(answered, "ppo/"),
        **({} if gold is None else {"ppo/gold_reward": gold}),
        "ppo/score_mean": float(scored.scores_B.mean()),
        "ppo/reward_mean": float(scored.rewards_BR.sum(dim=1).mean()),
        "ppo/kl_coef": kl_coef,
        "kl/ref_nats_per_response": float(scored.kl_B.mean()),
    }


def look(job: Job, step: int) -> None:
    """Answer the held-out prompts, if there are any."""
    if job.watch:
        metrics, samples = job.watch.look(job.policy, step)
        job.run.metrics.log(step, metrics)
        job.run.samples.append(samples)


def is_due(step: int, every: int | None) -> bool:
    """Whether something done every so many steps is done after this one."""
    return every is not None and step % every == 0


def save_step(job: Job, step: int) -> None:
    """A checkpoint of everything that decides the steps after this one."""
    tensors, state = training_state(job.policy.named_parameters(), job.optimizer)
    save_checkpoint(job.run.checkpoints, step, tensors, state)


def resume(job: Job) -> int:
    """Steps already done; weights, optimiser and random states are then those after them."""
    found = load_newest(job.run.checkpoints)
    job.run.metrics.cut_back(found.step if found else -1)
    job.run.samples.cut_back(found.step if found else -1)
    if found is None:
        return 0
    restore(job.policy.named_parameters(), job.optimizer, found.tensors, found.state)
    say(f"{job.run.path}: goes on from step {found.step}")
    return found.step


def finish(job: Job) -> StageResult:
    """Save the policy and its critic; the last look's figures are the results, the first's are marked [start]."""
    run = job.run
    save_model(job.loaded, run.model_dir, base_folder=run.base_dir)
    write_bytes(run.path / "value_head.safetensors", save(job.policy.value_head.state_dict()))
    looks = [row for row in run.metrics.rows() if "ppo/holdout_proxy_reward" in row] or run.metrics.rows()
    start = {f"{key}[start]": value for key, value in _numbers(looks[0]).items()}
    return StageResult(run.model_dir, _numbers(looks[-1]) | start)


def _numbers(row: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if "/" in key}
