"""PPO: the policy answers prompts, and what scores well is made likelier, not far from where the policy began.

Ziegler et al. 2019 (arXiv:1909.08593), Stiennon et al. 2020 (arXiv:2009.01325), Ouyang et al. 2022 (arXiv:2203.02155).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from safetensors.torch import save
from torch import Tensor

from aligner.errors import Interrupted, Problem, RecipeError
from aligner.models.load import save_model
from aligner.recipe.ppo import PpoRecipe, PpoSpec
from aligner.rl.answered import Answered
from aligner.rl.finite import Stopped
from aligner.rl.kl import adapted_coefficient
from aligner.rl.rollout import Rollout
from aligner.rl.score import Scored, score
from aligner.rl.seeds import generator
from aligner.rl.state import restore, training_state
from aligner.rl.update import Experience, UpdateStats, evaluate_in_parts, update
from aligner.run.checkpoint import load_newest, save_checkpoint
from aligner.run.folder import RunFolder
from aligner.run.progress import progress, say
from aligner.run.write import write_bytes
from aligner.stages.ppo_job import Job, prepare, rows_for
from aligner.stages.ppo_watch import gold_rewards, mean_of_known, text_metrics
from aligner.stages.stage import StageResult
from aligner.stages.stop import gentle_stop


def train_ppo(recipe: PpoRecipe, run: RunFolder) -> StageResult:
    """Reinforcement learning from the recipe's rewards; resumes from the newest checkpoint.

    Raises Interrupted (with a checkpoint saved) after Ctrl-C, TrainingError when something is no number, the policy is
    not the one that sampled, or a guard stops the run: with a checkpoint saved, where no weight has changed yet.
    """
    job = prepare(recipe, run)
    steps = recipe.ppo.steps
    done = resume(job)
    with progress("ppo", steps, done=done) as bar, gentle_stop() as stop:
        if done == 0:
            look(job, 0)
        for step in range(done, steps):
            with kept_when_stopped(job, step):
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
    earned = job.rewards.earned(answered)
    reference_BR = evaluate_in_parts(job.reference, rollout, rows_per_device=spec.rows_per_device).logprobs_BR
    kl_coef = job.progress.kl_coef
    scored = score(
        rollout,
        earned.scores_B,
        reference_BR,
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
    """Answer the held-out prompts, if there are any."""
    if job.watch:
        metrics, samples = job.watch.look(job.policy, step)
        job.run.metrics.log(step, metrics)
        job.run.samples.append(samples)
        if by := job.recipe.ppo.keep_best:
            job.best.consider(step, metrics[f"ppo/holdout_{by}_reward"])


def is_due(step: int, every: int | None) -> bool:
    """Whether something done every so many steps is done after this one."""
    return every is not None and step % every == 0


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
    tensors, state = training_state(job.policy.named_parameters(), job.optimizer)
    state |= {"progress": job.progress.to_json()}
    save_checkpoint(job.run.checkpoints, step, tensors | job.best.tensors(), state)


def resume(job: Job) -> int:
    """Steps already done; weights, optimiser and random states are then those after them."""
    found = load_newest(job.run.checkpoints)
    job.run.metrics.cut_back(found.step if found else -1)
    job.run.samples.cut_back(found.step if found else -1)
    if found is None:
        return 0
    restore(job.policy.named_parameters(), job.optimizer, found.tensors, found.state)
    job.progress.restore(found.state.get("progress", {}))
    job.best.restore(found.tensors)
    say(f"{job.run.path}: goes on from step {found.step}")
    return found.step


def finish(job: Job) -> StageResult:
    """Save the policy and its critic, as they are or as they were at their best.

    The figures of that look are the results; the first look's are marked [start], and the last's [last] where it is
    another one.
    """
    run, best_step = job.run, job.progress.best_step
    if best_step is not None:
        job.best.put_back()
    save_model(job.loaded, run.model_dir, base_folder=run.base_dir)
    write_bytes(run.path / "value_head.safetensors", save(job.policy.critic_state()))
    looks = [row for row in run.metrics.rows() if "ppo/holdout_proxy_reward" in row] or run.metrics.rows()
    start = {f"{key}[start]": value for key, value in _numbers(looks[0]).items()}
    if best_step is None:
        return StageResult(run.model_dir, _numbers(looks[-1]) | start)
    kept = next(row for row in looks if row["step"] == best_step)
    last = {f"{key}[last]": value for key, value in _numbers(looks[-1]).items()}
    results = _numbers(kept) | start | (last if kept is not looks[-1] else {})
    return StageResult(run.model_dir, results | {"ppo/best_step": float(best_step)})


def _numbers(row: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if "/" in key}
