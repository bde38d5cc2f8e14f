"""RLOO, GRPO and rejection sampling: answers to the same prompt are judged by each other, so no critic is trained.

Ahmadian et al. 2024 (arXiv:2402.14740), Shao et al. 2024 (arXiv:2402.03300), Llama 2 (arXiv:2307.09288). Sampler,
rewards, reference, watch and checkpoints are PPO's; TRL's trainers sample by their own rules and cannot be given a
rollout. Tests hold the losses against TRL's on the same rollouts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from aligner.data.build import build_prompts, build_training_prompts
from aligner.data.tokens import PromptRow
from aligner.errors import Interrupted, Problem
from aligner.models.backbone import backbone_of
from aligner.models.load import LoadedModel, load_model, save_model
from aligner.models.sample import prompt_room
from aligner.recipe.group import GroupRecipe, GroupSpec, RejectionSpec, RlooSpec
from aligner.rl.actors import LanguageActor
from aligner.rl.group_update import (
    GroupBatch,
    GroupStats,
    GroupUpdate,
    advantages,
    best_responses,
    policy_optimizer,
    policy_weights,
)
from aligner.rl.rewards import Rewards, load_functions, load_rewards
from aligner.rl.rollout import Rollout, prompts_for
from aligner.rl.score import score
from aligner.rl.seeds import generator
from aligner.rl.state import restore, training_state
from aligner.rl.update import evaluate_in_parts
from aligner.run.checkpoint import load_newest, save_checkpoint
from aligner.run.folder import RunFolder
from aligner.run.progress import progress, say
from aligner.run.seed import seed_everything
from aligner.stages.ppo_watch import Watch, gold_rewards, mean_of_known, tell_rewards, text_metrics
from aligner.stages.stage import StageResult
from aligner.stages.stop import gentle_stop
from aligner.stages.watching import policy_of


@dataclass(frozen=True)
class GroupJob:
    """Everything a run works with."""

    recipe: GroupRecipe
    run: RunFolder
    loaded: LoadedModel
    policy: LanguageActor
    reference: LanguageActor
    rewards: Rewards
    prompts: list[PromptRow]
    watch: Watch | None
    update: GroupUpdate


def train_group(recipe: GroupRecipe, run: RunFolder) -> StageResult:
    """Reinforcement learning from the recipe's rewards; resumes from the newest checkpoint.

    Raises Interrupted (with a checkpoint saved) after Ctrl-C, TrainingError when a loss is no number or the policy
    is not the one that sampled.
    """
    job, area, spec = prepare(recipe, run), recipe.stage, recipe.numbers
    done = resume(job)
    with progress(area, spec.steps, done=done) as bar, gentle_stop() as stop:
        if done == 0:
            look(job, 0)
        for step in range(done, spec.steps):
            figures = train_step(job, step)
            run.metrics.log(step + 1, figures)
            reward, kl = figures[f"{area}/proxy_reward"], figures["kl/ref_nats_per_response"]
            bar.advance(1, reward=reward, kl=kl)
            last = step + 1 == spec.steps
            if last or (step + 1) % spec.evaluate_every == 0:
                look(job, step + 1)
            due = spec.checkpoint_every and (step + 1) % spec.checkpoint_every == 0
            if stop.asked or due:
                save_checkpoint(
                    run.checkpoints, step + 1, *training_state(job.update.weights, job.update.optimizer)
                )
            if stop.asked and not last:
                fault = f"stopped at step {step + 1} of {spec.steps}; a checkpoint is saved"
                raise Interrupted(Problem(str(run.path), fault, "the same command goes on from there"))
    save_model(job.loaded, run.model_dir, base_folder=run.base_dir)
    return StageResult(run.model_dir, results(run))


def prepare(recipe: GroupRecipe, run: RunFolder) -> GroupJob:
    """Open the doors: rewards (their mistakes cost nothing yet), model, prompts that leave room for an answer."""
    load_functions(recipe.reward)
    seed_everything(recipe.seed)
    loaded, data, spec = load_model(recipe.model), recipe.data, recipe.numbers
    is_bf16 = spec.precision == "bf16"
    policy = learner = policy_of(loaded, recipe.sampling, autocast=is_bf16)
    reference = policy.reference()
    rewards = load_rewards(recipe.reward, loaded.tokenizer, backbone_of(reference.model, loaded))
    tell_rewards(rewards)
    limit = min(data.max_prompt_tokens, prompt_room(loaded.model, recipe.sampling.max_new_tokens))
    train = build_training_prompts(data, loaded.tokenizer, max_prompt_tokens=limit, seed=recipe.seed)
    held = (
        build_prompts(
            data.holdout, loaded.tokenizer, max_prompt_tokens=limit, seed=recipe.seed, clean=data.clean
        )
        if data.holdout
        else None
    )
    rewards.check_prompts([row.prompt for row in [*train.rows, *(held.rows if held else ())]])
    reports = {"train": train.report.to_json()} | ({"holdout": held.report.to_json()} if held else {})
    run.start(parents={"base": loaded.identity} | rewards.identities(), data=reports, seed=recipe.seed)
    if isinstance(spec, RejectionSpec):
        as_in_sft = recipe.sampling.model_copy(update={"temperature": 1.0})
        learner = policy_of(loaded, as_in_sft, autocast=is_bf16)
    weights = policy_weights(policy)
    update = GroupUpdate(recipe, learner, weights, policy_optimizer(weights, spec, recipe.stage))
    watched = held.rows[: data.holdout_rows] if held else []
    watch = Watch(watched, rewards, reference, recipe.seed, spec.rows_per_device, recipe.stage)
    return GroupJob(
        recipe, run, loaded, policy, reference, rewards, train.rows, watch if watched else None, update
    )


def train_step(job: GroupJob, step: int) -> dict[str, float]:
    """Prompts, rollout, score, update; what happened, for metrics.jsonl."""
    recipe, spec, began = job.recipe, job.recipe.numbers, time.perf_counter()
    chosen = prompts_for(
        step, num_prompts=len(job.prompts), prompts_per_step=spec.prompts_per_step, seed=recipe.seed
    )
    rows = [job.prompts[i] for i in chosen for _ in range(spec.samples_per_prompt)]
    rollout = job.policy.sample([row.input_ids for row in rows], generator(recipe.seed, "rollout", step))
    answered = job.rewards.answered([row.prompt for row in rows], rollout)
    proxy_B = job.rewards(answered)
    reference_BR = _logprobs(job, job.reference, rollout)
    kl_coef = spec.kl_coef if isinstance(spec, RlooSpec) else 0.0  # in the reward; GRPO's is in the loss
    scored = score(rollout, proxy_B, reference_BR, kl_coef=kl_coef, missing_eos=spec.missing_eos)
    old_BR = rollout.logprobs_BR if job.policy.same_numerics else _logprobs(job, job.policy, rollout)
    batch = GroupBatch(scored.rollout, old_BR, reference_BR, advantages(scored, spec))
    if isinstance(spec, RejectionSpec):
        batch = best_responses(batch, scored.scores_B, spec)
    stats = job.update(batch, step)
    scores_PG = scored.scores_B.view(-1, spec.samples_per_prompt)
    own = {
        **told(stats, spec),
        "proxy_reward": float(proxy_B.mean()),
        "score_mean": float(scored.scores_B.mean()),
        "reward_mean": float((scored.scores_B - kl_coef * scored.kl_B).mean()),
        "best_score_mean": float(scores_PG.amax(dim=1).mean()),
        "flat_groups_share": float((scores_PG.amax(dim=1) == scores_PG.amin(dim=1)).float().mean()),
        "learning_rate": job.update.optimizer.param_groups[0]["lr"],
        "kl_coef": 0.0 if isinstance(spec, RejectionSpec) else spec.kl_coef,
        "tokens_per_second": rollout.num_tokens / (time.perf_counter() - began),
    }
    if (gold := mean_of_known(gold_rewards(answered))) is not None:
        own["gold_reward"] = gold
    named = {f"{recipe.stage}/{name}": value for name, value in own.items()}
    kl = {"kl/ref_nats_per_response": float(scored.kl_B.mean())}
    return named | kl | text_metrics(answered, f"{recipe.stage}/")


def told(stats: GroupStats, spec: GroupSpec) -> dict[str, float]:
    """The update's figures; learning the best as SFT does has no ratio."""
    figures = stats._asdict()
    if isinstance(spec, RejectionSpec):
        return {
            "loss_nats": stats.policy_loss,
            **{key: figures[key] for key in ("entropy_nats", "grad_norm")},
        }
    return figures


def _logprobs(job: GroupJob, actor: LanguageActor, rollout: Rollout) -> Tensor:
    return evaluate_in_parts(actor, rollout, rows_per_device=job.recipe.numbers.rows_per_device).logprobs_BR


def look(job: GroupJob, step: int) -> None:
    """Answer the held-out prompts, if there are any."""
    if job.watch:
        metrics, samples = job.watch.look(job.policy, step)
        job.run.metrics.log(step, metrics)
        job.run.samples.append(samples)


def resume(job: GroupJob) -> int:
    """Steps already done; weights, optimiser and random states are then those after them."""
    found = load_newest(job.run.checkpoints)
    job.run.metrics.cut_back(found.step if found else -1)
    job.run.samples.cut_back(found.step if found else -1)
    if found is None:
        return 0
    restore(job.update.weights, job.update.optimizer, found.tensors, found.state)
    say(f"{job.run.path}: goes on from step {found.step}")
    return found.step


def results(run: RunFolder) -> dict[str, float]:
    """The last look's figures, and the first's marked [start]; without held-out prompts, those of the steps."""
    rows = run.metrics.rows()
    looks = [row for row in rows if "kl/holdout_ref_nats_per_response" in row] or rows
    start = {f"{key}[start]": value for key, value in _numbers(looks[0]).items()}
    return _numbers(looks[-1]) | start


def _numbers(row: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if "/" in key}
