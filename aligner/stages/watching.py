"""Held-out prompts that are answered while a stage trains on other rows: the figures PPO has, of any policy."""

from __future__ import annotations

from collections.abc import Mapping

from aligner.data.build import Prompts, build_prompts
from aligner.models.heads import ValueHead
from aligner.models.load import LoadedModel
from aligner.models.sample import prompt_room
from aligner.models.wrapped import device_of, text_config
from aligner.recipe.preference import PreferenceRecipe
from aligner.recipe.training import SamplingSpec
from aligner.rl.actors import Drawing, LanguageActor
from aligner.rl.rewards import Rewards
from aligner.run.folder import RunFolder
from aligner.stages.ppo_watch import Watch


def policy_of(loaded: LoadedModel, sampling: SamplingSpec, *, autocast: bool = False) -> LanguageActor:
    """The model as PPO's actor, with a critic that nobody asks or trains."""
    drawing = Drawing(
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        eos_id=loaded.tokenizer.eos_token_id,
        pad_id=loaded.tokenizer.pad_token_id,
        autocast=autocast,
    )
    critic = ValueHead(text_config(loaded.model).hidden_size).to(device_of(loaded.model))
    return LanguageActor(loaded.model, critic, drawing)


def watched_prompts(recipe: PreferenceRecipe, loaded: LoadedModel) -> Prompts | None:
    """The prompts of `watch.holdout`, cut to what leaves room for an answer; None where there are none."""
    watch = recipe.watch
    if not watch.holdout:
        return None
    longest = min(watch.max_prompt_tokens, prompt_room(loaded.model, recipe.sampling.max_new_tokens))
    return build_prompts(watch.holdout, loaded.tokenizer, max_prompt_tokens=longest, seed=recipe.seed)


class Watcher:
    """Looks at the policy whenever it is asked to; made before training, since the policy of then is the reference."""

    def __init__(
        self,
        recipe: PreferenceRecipe,
        run: RunFolder,
        loaded: LoadedModel,
        prompts: Prompts,
        rewards: Rewards,
    ) -> None:
        self.run = run
        self.policy = policy_of(loaded, recipe.sampling)
        rows = prompts.rows[: recipe.watch.holdout_rows]
        reference = self.policy.reference()
        per_pass = recipe.train.rows_per_device or recipe.train.rows_per_step
        self.watch = Watch(rows, rewards, reference, recipe.seed, per_pass, recipe.stage)

    def look(self, step: int) -> dict[str, float]:
        """Figures of the policy after `step` steps; its first answers go to samples.jsonl."""
        metrics, samples = self.watch.look(self.policy, step)
        self.run.samples.append(samples)
        return metrics

    def results(self) -> dict[str, float]:
        """The last look's figures, and the first's marked [start]."""
        rows = [_watched(row) for row in self.run.metrics.rows() if "kl/holdout_ref_nats_per_response" in row]
        return rows[-1] | {f"{key}[start]": value for key, value in rows[0].items()}


def _watched(row: Mapping[str, float]) -> dict[str, float]:
    """The figures of a look, without those of held-out pairs."""
    return {key: value for key, value in row.items() if "/holdout_" in key}
