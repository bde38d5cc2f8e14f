"""PPO: the policy answers prompts, and what scores well is made likelier, not far from where the policy began.

Ziegler et al. 2019 (arXiv:1909.08593), Stiennon et al. 2020 (arXiv:2009.01325), Ouyang et al. 2022 (arXiv:2203.02155).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from safetensors.torch import save
from torch import Tensor

from aligner.errors import RecipeError
from aligner.models.load import save_model
from aligner.recipe.ppo import PpoRecipe, PpoSpec
from aligner.rl.answered import Answered
from aligner.rl.finite import Stopped
from aligner.rl.kl import adapted_coefficient
from aligner.rl.ranks import ranks_of_launch
from aligner.rl.rollout import Rollout
from aligner.rl.score import Scored, score
from aligner.rl.update import Experience, UpdateStats, update
from aligner.run.folder import RunFolder
from aligner.run.write import write_bytes
from aligner.stages.ppo_job import Job, prepare
from aligner.stages.ppo_watch import gold_rewards, mean_of_known, text_metrics
from aligner.stages.rollouts import (
    check_room,
    check_start,
    collect_step,
    figures_of,
    logprobs_of,
    look_at,
    looks_of,
    marked,
    resume_state,
    run_steps,
    save_state,
)
from aligner.stages.stage import StageResult, new_model


def train_ppo(recipe: PpoRecipe, run: RunFolder) -> StageResult:
    """Reinforcement learning from the recipe's rewards; resumes from the newest checkpoint.

    Raises Interrupted (with a checkpoint saved) after Ctrl-C, TrainingError when something is no number, the policy is
    not the one that sampled, or a guard stops the run: with a checkpoint saved, where no weight has changed yet.
    StorageError, ModelError where there is no room for the run on the disk or in memory.
    """
    ranks = ranks_of_launch()
    job = ranks.agree(lambda: prepare(recipe, run, ranks))
    check_start(job)
    check_room(job, job.policy.parameters(), best=recipe.ppo.keep_best is not None)

    def step_of(step: int) -> dict[str, float]:
        with kept_when_stopped(job, step):
            return train_step(job, step)

    run_steps(job, resume(job), train_step=step_of, look=partial(look, job), save=partial(save_step, job))
    return finish(job)


def train_step(job: Job, step: int) -> dict[str, float]:
    """Prompts, rollout, score, update; what happened, for metrics.jsonl."""
    recipe, spec, began = job.recipe, job.recipe.ppo, time.perf_counter()
    answered, earned = collect_step(job, step)
    rollout, kl_coef = answered.rollout, job.progress.kl_coef
    scored = score(
        rollout,
        earned.scores_B,
        logprobs_of(job, job.reference, rollout),
        kl_coef=kl_coef,
        missing_eos=spec.missing_eos,
        tokens_BR=earned.tokens_BR,
    )
    stats = update(
        job.policy,
        job.optimizer,
        scored,
        spec,
        seed=recipe.seed,
        step=step,
        same_numerics=job.policy.same_numerics,
        mix=job.ptx,
        check=guard(job, rollout, scored),
        ranks=job.ranks,
    )
    job.progress.kl_coef = next_kl_coef(spec, kl_coef, float(scored.kl_B.mean()), step=step)
    figures = {
        "ppo/proxy_reward": float(earned.total().mean()),
        "ppo/learning_rate": job.optimizer.param_groups[0]["lr"],
    }
    figures["ppo/guard_warnings"] = job.guards.warnings
    figures["ppo/tokens_per_second"] = rollout.num_tokens / (time.perf_counter() - began)
    if job.ptx:
        figures["ppo/ptx_nats"] = stats.ptx_nats
    return figures | step_metrics(answered, scored, stats, kl_coef=kl_coef)


def guard(job: Job, rollout: Rollout, scored: Scored) -> Callable[[Experience], None]:
    """The recipe's guards over this step; the first step's length is what later ones are compared with."""
    length = rollout.num_tokens / len(rollout.prompts)
    job.progress.first_length = job.progress.first_length or length
    ratio = length / job.progress.first_length
    return partial(job.guards.check, kl_nats=float(scored.kl_B.mean()), length_ratio=ratio)


def next_kl_coef(spec: PpoSpec, kl_coef: float, kl_nats: float, *, step: int) -> float:
    """The coefficient of the step after `step`, whose responses had this KL; while the policy waits, it does too."""
    if spec.adaptive_kl is None or step < spec.value_warmup_steps:
        return kl_coef
    aim = spec.adaptive_kl
    return adapted_coefficient(
        kl_coef, kl_nats, target=aim.target, horizon=aim.horizon, episodes=spec.episodes_per_step
    )


def step_metrics(
    answered: Answered, scored: Scored, stats: UpdateStats, *, kl_coef: float
) -> dict[str, float]:
    """Figures of one step on its own responses."""
    gold = mean_of_known(gold_rewards(answered))
    return {
        **{f"ppo/{name}": value for name, value in stats._asdict().items() if name != "ptx_nats"},
        **text_metrics(answered, "ppo/"),
        **({} if gold is None else {"ppo/gold_reward": gold}),
        "ppo/score_mean": float(scored.scores_B.mean()),
        "ppo/reward_mean": float(_of_counted(scored.rewards_BR.sum(dim=1), scored)),
        "ppo/kl_coef": kl_coef,
        "kl/ref_nats_per_response": float(scored.kl_B.mean()),
    }


def _of_counted(x_B: Tensor, scored: Scored) -> Tensor:
    """Mean over the episodes that are learnt from; 0 where none is."""
    counted_B = scored.rollout.mask_BR.any(dim=1)
    return x_B[counted_B].mean() if bool(counted_B.any()) else x_B.new_zeros(())


def look(job: Job, step: int) -> None:
    """Answer the held-out prompts, if there are any, and keep the policy if it is the best so far."""
    metrics, by = look_at(job, step), job.recipe.ppo.keep_best
    if metrics and by:
        job.best.consider(step, metrics[f"ppo/holdout_{by}_reward"])


@contextmanager
def kept_when_stopped(job: Job, step: int) -> Iterator[None]:
    """A step that ends the run before its update leaves a checkpoint of the step before: its weights are still those.

    RecipeError is a reward's: a function that gave no number, a server that is gone.
    """
    before = job.progress.to_json()
    try:
        yield
    except (Stopped, RecipeError):
        if step:
            job.progress.restore(before)
            save_step(job, step)
        raise


def save_step(job: Job, step: int) -> None:
    """A checkpoint of everything that decides the steps after this one."""
    state = {"progress": job.progress.to_json()}
    weights = job.policy.named_parameters()
    save_state(job, step, weights, job.optimizer, tensors=job.best.tensors(), state=state)


def resume(job: Job) -> int:
    """Steps already done; weights, optimiser and random states are then those after them."""
    found = resume_state(job, job.policy.named_parameters(), job.optimizer)
    if found is None:
        return 0
    job.progress.restore(found.state.get("progress", {}))
    job.best.restore(found.tensors)
    return found.step


def finish(job: Job) -> StageResult:
    """Save the policy and its critic, as they are or as they were at their best; the first rank does.

    The figures of that look are the results; the first look's are marked [start], and the last's [last] where it is
    another one.
    """
    run, best_step = job.run, job.progress.best_step
    if not run.leads:
        return StageResult(None, {})
    if best_step is not None:
        job.best.put_back()
    with new_model(run) as folder:
        save_model(job.loaded, folder, base_folder=run.base_dir)
    write_bytes(run.path / "value_head.safetensors", save(job.policy.critic_state()))
    looks = looks_of(run)
    start, last = marked(looks[0], "start"), looks[-1]
    if best_step is None:
        return StageResult(run.model_dir, figures_of(last) | start)
    kept = next(row for row in looks if row["step"] == best_step)
    results = figures_of(kept) | start | (marked(last, "last") if kept is not last else {})
    return StageResult(run.model_dir, results | {"ppo/best_step": float(best_step)})
