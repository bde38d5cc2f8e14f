"""RLOO, GRPO and rejection sampling: answers to the same prompt are judged by each other, so no critic is trained.

Ahmadian et al. 2024 (arXiv:2402.14740), Shao et al. 2024 (arXiv:2402.03300), Llama 2 (arXiv:2307.09288). Sampler,
rewards, reference, watch and checkpoints are PPO's; TRL's trainers sample by their own rules and cannot be given a
rollout. Tests hold the losses against TRL's on the same rollouts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from aligner.models.load import save_model
from aligner.recipe.group import GroupRecipe, GroupSpec, RejectionSpec, RlooSpec
from aligner.rl.finite import check_finite
from aligner.rl.group_update import (
    GroupBatch,
    GroupStats,
    GroupUpdate,
    advantages,
    best_responses,
    check_scored,
    policy_optimizer,
    policy_weights,
)
from aligner.rl.ranks import Ranks, ranks_of_launch
from aligner.rl.score import score
from aligner.run.folder import RunFolder
from aligner.stages.ppo_watch import gold_rewards, mean_of_known, text_metrics
from aligner.stages.rollouts import (
    RolloutJob,
    check_room,
    check_start,
    collect_step,
    figures_of,
    logprobs_of,
    look_at,
    looks_of,
    marked,
    open_roles,
    resume_state,
    run_steps,
    save_state,
    watch_of,
)
from aligner.stages.stage import StageResult, new_model
from aligner.stages.watching import policy_of


@dataclass(frozen=True)
class GroupJob(RolloutJob):
    """Everything a run works with."""

    recipe: GroupRecipe
    update: GroupUpdate


def train_group(recipe: GroupRecipe, run: RunFolder) -> StageResult:
    """Reinforcement learning from the recipe's rewards; resumes from the newest checkpoint.

    Raises Interrupted (with a checkpoint saved) after Ctrl-C, TrainingError when something is no number or the policy
    is not the one that sampled.
    """
    ranks = ranks_of_launch()
    job = ranks.agree(lambda: prepare(recipe, run, ranks))
    check_start(job)
    weights, optimizer = job.update.weights, job.update.optimizer
    check_room(job, weights.values())

    def look(step: int) -> None:
        look_at(job, step)

    def save(step: int) -> None:
        save_state(job, step, weights, optimizer, tensors={}, state={})

    found = resume_state(job, weights, optimizer)
    done = found.step if found else 0
    run_steps(job, done, train_step=lambda step: train_step(job, step), look=look, save=save)
    if not run.leads:
        return StageResult(None, {})
    with new_model(run) as folder:
        save_model(job.loaded, folder, base_folder=run.base_dir)
    looks = looks_of(run)
    return StageResult(run.model_dir, figures_of(looks[-1]) | marked(looks[0], "start"))


def prepare(recipe: GroupRecipe, run: RunFolder, ranks: Ranks) -> GroupJob:
    """Open everything, and start the run's record."""
    spec = recipe.numbers
    is_bf16 = spec.precision == "bf16"
    opened = open_roles(recipe, lambda loaded: policy_of(loaded, recipe.sampling, autocast=is_bf16))
    loaded, policy, reference, _, rewards, prompts = opened
    learner = policy
    run.start(
        parents={"base": loaded.identity} | rewards.identities(), data=prompts.reports(), seed=recipe.seed
    )
    if isinstance(spec, RejectionSpec):
        as_in_sft = recipe.sampling.model_copy(update={"temperature": 1.0})
        learner = policy_of(loaded, as_in_sft, autocast=is_bf16)
    weights = policy_weights(policy)
    optimizer = policy_optimizer(weights, spec, recipe.stage)
    return GroupJob(
        recipe=recipe,
        run=run,
        ranks=ranks,
        loaded=loaded,
        policy=policy,
        reference=reference,
        rewards=rewards,
        prompts=prompts.train.rows,
        watch=watch_of(recipe, prompts.holdout, rewards, reference, ranks),
        update=GroupUpdate(recipe, learner, weights, optimizer, ranks),
    )


def train_step(job: GroupJob, step: int) -> dict[str, float]:
    """Prompts, rollout, score, update; what happened, for metrics.jsonl."""
    recipe, spec, began = job.recipe, job.recipe.numbers, time.perf_counter()
    answered, earned = collect_step(job, step)
    rollout, proxy_B = answered.rollout, earned.total()
    reference_BR = logprobs_of(job, job.reference, rollout)
    kl_coef = spec.kl_coef if isinstance(spec, RlooSpec) else 0.0  # in the reward; GRPO's is in the loss
    scored = score(rollout, proxy_B, reference_BR, kl_coef=kl_coef, missing_eos=spec.missing_eos)
    check_scored(scored, rollout, reference_BR, recipe.stage)
    old_BR = rollout.logprobs_BR if job.policy.same_numerics else logprobs_of(job, job.policy, rollout)
    advantages_B = advantages(scored, spec)
    check_finite(advantages_B, None, "advantages", recipe.stage)
    batch = GroupBatch(scored.rollout, old_BR, reference_BR, advantages_B)
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
