"""What PPO, RLOO, GRPO and rejection sampling share: they learn from the policy's own answers, step by step.

Of several processes every one runs all of this; the run folder is written by the first (see aligner/rl/ranks.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from aligner.data.build import Prompts, build_prompts, build_training_prompts
from aligner.data.rows import Prompt
from aligner.data.tokens import PromptRow
from aligner.errors import Interrupted, Problem
from aligner.models.backbone import Backbone, backbone_of
from aligner.models.load import LoadedModel, load_model
from aligner.models.sample import prompt_room
from aligner.recipe.group import GroupRecipe
from aligner.recipe.ppo import PpoRecipe
from aligner.rl.actors import LanguageActor
from aligner.rl.collect import Collected, collect
from aligner.rl.finite import check_weights
from aligner.rl.ranks import Ranks
from aligner.rl.rewards import Rewards, load_functions, load_rewards
from aligner.rl.rollout import Rollout, prompts_for
from aligner.rl.seeds import generator
from aligner.rl.state import random_of_ranks, restore, restore_random, training_state
from aligner.rl.update import evaluate_in_parts
from aligner.run.checkpoint import Checkpoint, save_checkpoint
from aligner.run.folder import RunFolder
from aligner.run.home import rows_home
from aligner.run.progress import progress, say
from aligner.run.seed import seed_everything
from aligner.stages.ppo_watch import Watch, tell_rewards
from aligner.stages.resume import newest_for_all
from aligner.stages.room import COPIES, check_disk, check_memory
from aligner.stages.spikes import SpikeRule, Spikes
from aligner.stages.stop import gentle_stop

Figures = dict[str, float]
LOSSES = ("policy_loss", "value_loss", "loss_nats")


@dataclass(frozen=True)
class RolloutJob:
    """What such a run works with, whatever it learns by."""

    recipe: PpoRecipe | GroupRecipe
    run: RunFolder
    ranks: Ranks
    loaded: LoadedModel
    policy: LanguageActor
    reference: LanguageActor
    rewards: Rewards
    prompts: Sequence[PromptRow]
    watch: Watch | None


class RolloutPrompts(NamedTuple):
    """Prompts that leave room for an answer."""

    train: Prompts
    holdout: Prompts | None

    def all(self) -> list[Prompt]:
        """Those to learn from, then those to watch."""
        return [row.prompt for part in (self.train, self.holdout) if part for row in part.rows]

    def reports(self) -> dict[str, Any]:
        """What was read, for the manifest."""
        return {name: part.report.to_json() for name, part in self._asdict().items() if part}


class Opened(NamedTuple):
    """What such a run opens before it writes anything."""

    loaded: LoadedModel
    policy: LanguageActor
    reference: LanguageActor
    backbone: Backbone
    rewards: Rewards
    prompts: RolloutPrompts


def open_roles(recipe: PpoRecipe | GroupRecipe, new_policy: Callable[[LoadedModel], LanguageActor]) -> Opened:
    """Open the doors: rewards (their mistakes cost nothing yet), model, prompts that leave room for an answer."""
    load_functions(recipe.reward)
    seed_everything(recipe.seed)
    loaded = load_model(recipe.model)
    policy = new_policy(loaded)
    reference = policy.reference()
    backbone = backbone_of(reference.model, loaded)
    rewards = load_rewards(recipe.reward, loaded.tokenizer, backbone)
    tell_rewards(rewards)
    prompts = read_prompts(recipe, loaded)
    rewards.check_prompts(prompts.all())
    return Opened(loaded, policy, reference, backbone, rewards, prompts)


def read_prompts(recipe: PpoRecipe | GroupRecipe, loaded: LoadedModel) -> RolloutPrompts:
    """The recipe's prompts; longer ones are cut from the left."""
    data, tokenizer = recipe.data, loaded.tokenizer
    limit = min(data.max_prompt_tokens, prompt_room(loaded.model, recipe.sampling.max_new_tokens))
    fitting = data.model_copy(update={"max_prompt_tokens": limit})
    train = build_training_prompts(fitting, tokenizer, seed=recipe.seed, keep=rows_home())
    if not data.holdout:
        return RolloutPrompts(train, None)
    held = build_prompts(data.holdout, tokenizer, max_prompt_tokens=limit, seed=recipe.seed, clean=data.clean)
    return RolloutPrompts(train, held)


def watch_of(
    recipe: PpoRecipe | GroupRecipe,
    held: Prompts | None,
    rewards: Rewards,
    reference: LanguageActor,
    ranks: Ranks,
) -> Watch | None:
    """The look at held-out prompts, where there are any."""
    rows = held.rows[: recipe.data.holdout_rows] if held else []
    per_device = recipe.numbers.rows_per_device
    return Watch(rows, rewards, reference, recipe.seed, per_device, recipe.stage, ranks) if rows else None


def check_start(job: RolloutJob) -> None:
    """ModelError where the ranks do not start from the same policy, critic and prompts."""
    weights = [*job.policy.model.parameters(), *job.policy.parameters()]
    job.ranks.check_same(weights, "the start model's weights")
    ids = torch.tensor([token for row in job.prompts for token in (*row.input_ids, -1)])
    job.ranks.check_same([ids], "the prompts")


def check_room(job: RolloutJob, weights: Iterable[nn.Parameter], *, best: bool = False) -> None:
    """StorageError, ModelError where disk or memory have no room for the steps to come, on all ranks.

    best: a checkpoint holds the best policy's weights, too. A base that lies nowhere yet is written with the model.
    """
    learnt = sum(weight.nbytes for weight in weights)
    frozen = sum(weight.nbytes for weight in job.loaded.model.parameters() if not weight.requires_grad)
    merged = frozen if job.loaded.merged_base else 0
    copies, every = COPIES + best, job.recipe.numbers.checkpoint_every
    job.ranks.first(
        lambda: check_disk(job.run, model=learnt + merged, checkpoint=copies * learnt, every=every)
    )
    job.ranks.agree(lambda: check_memory(job.run, learnt))


def run_steps(
    job: RolloutJob,
    done: int,
    *,
    train_step: Callable[[int], Figures],
    look: Callable[[int], None],
    save: Callable[[int], None],
) -> None:
    """The steps after `done` of them; Interrupted after Ctrl-C on any rank, with a checkpoint saved.

    All ranks end with the same step: whether one was asked to stop is agreed on between two.
    """
    area, spec = job.recipe.stage, job.recipe.numbers
    spikes = spikes_so_far(job)
    with progress(area, spec.steps, done=done) as bar, gentle_stop() as stop:
        if done == 0:
            look(0)
        for step in range(done, spec.steps):
            figures = train_step(step)
            job.run.metrics.log(step + 1, figures)
            spikes.see(step + 1, losses_in(figures))
            reward, kl = figures[f"{area}/proxy_reward"], figures["kl/ref_nats_per_response"]
            bar.advance(1, reward=reward, kl=kl)
            last = step + 1 == spec.steps
            if last or is_due(step + 1, spec.evaluate_every):
                look(step + 1)
            stopped = job.ranks.any(stop.asked)
            if stopped or is_due(step + 1, spec.checkpoint_every):
                save(step + 1)
            if stopped and not last:
                fault = f"stopped at step {step + 1} of {spec.steps}; a checkpoint is saved"
                raise Interrupted(Problem(str(job.run.path), fault, "the same command goes on from there"))


def spikes_so_far(job: RolloutJob) -> Spikes:
    """What judges the losses; those of the steps that are done are in the metrics."""

    def rows_of(step: int) -> list[str]:
        return [str(row.prompt.origin) for row in rows_for(job, step - 1)]

    rules: defaultdict[str, SpikeRule] = defaultdict(SpikeRule)
    for row in job.run.metrics.rows():
        for name, loss in losses_in(row).items():
            rules[name].see(loss)
    return Spikes(job.run, rows_of, rules)


def losses_in(row: Mapping[str, float]) -> Figures:
    """The losses among a step's figures."""
    return {name: value for name, value in row.items() if name.partition("/")[2] in LOSSES}


def is_due(step: int, every: int | None) -> bool:
    """Whether something done every so many steps is done after this one."""
    return every is not None and step % every == 0


def rows_for(job: RolloutJob, step: int) -> list[PromptRow]:
    """The prompts of one step, each as often as the recipe samples it."""
    spec = job.recipe.numbers
    chosen = prompts_for(
        step, num_prompts=len(job.prompts), prompts_per_step=spec.prompts_per_step, seed=job.recipe.seed
    )
    return [row for i in chosen for row in [job.prompts[i]] * spec.samples_per_prompt]


def collect_step(job: RolloutJob, step: int) -> Collected:
    """The answers of one step and what they earned, the same on every rank."""
    rng = generator(job.recipe.seed, "rollout", step)
    group = job.recipe.numbers.samples_per_prompt
    return collect(job.policy, job.rewards, rows_for(job, step), rng, ranks=job.ranks, group=group)


def logprobs_of(job: RolloutJob, actor: LanguageActor, rollout: Rollout) -> Tensor:
    """What the actor's log-probabilities of a rollout are now: (B, R), nats."""
    per_device = job.recipe.numbers.rows_per_device
    return evaluate_in_parts(actor, rollout, rows_per_device=per_device, ranks=job.ranks).logprobs_BR


def look_at(job: RolloutJob, step: int) -> Figures | None:
    """Answer the held-out prompts, if there are any; its figures."""
    if job.watch is None:
        return None
    metrics, samples = job.watch.look(job.policy, step)
    job.run.metrics.log(step, metrics)
    job.run.samples.append(samples)
    return metrics


def save_state(
    job: RolloutJob,
    step: int,
    weights: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    *,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> None:
    """A checkpoint of everything that decides the steps after this one.

    ModelError where the ranks have parted, TrainingError where a weight is no number.
    """
    check_weights(weights.values(), job.recipe.stage)
    job.ranks.check_same(weights.values(), "the trained weights")
    of_training, more = training_state(weights, optimizer)
    of_ranks, random = random_of_ranks(job.ranks)
    job.ranks.first(
        lambda: save_checkpoint(
            job.run.checkpoints, step, of_training | of_ranks | dict(tensors), more | random | dict(state)
        )
    )


def resume_state(
    job: RolloutJob, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> Checkpoint | None:
    """Go back to the newest checkpoint, if there is one; all ranks read the one that the first one found whole."""
    found = newest_for_all(job.ranks, job.run.checkpoints)
    job.run.metrics.cut_back(found.step if found else -1)
    job.run.samples.cut_back(found.step if found else -1)
    job.run.spikes.cut_back(found.step if found else -1)
    if found is None:
        return None
    restore(weights, optimizer, found.tensors, found.state)
    restore_random(job.ranks, found.tensors, found.state)
    say(f"{job.run.path}: goes on from step {found.step}")
    return found


def figures_of(row: Mapping[str, float]) -> Figures:
    """A logged row without its step and seconds."""
    return {key: value for key, value in row.items() if "/" in key}


def looks_of(run: RunFolder) -> list[dict[str, Any]]:
    """The rows of the looks; without held-out prompts, those of the steps."""
    rows = run.metrics.rows()
    return [row for row in rows if "kl/holdout_ref_nats_per_response" in row] or rows


def marked(row: Mapping[str, float], mark: str) -> Figures:
    """The figures of a row, each as `name[mark]`."""
    return {f"{key}[{mark}]": value for key, value in figures_of(row).items()}
