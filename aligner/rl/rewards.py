"""What a response is worth: reward models, Python functions, rules and servers, added up by weight.

B = episodes, R = response positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from aligner.data.answers import check_prompts, tokenize_answers
from aligner.data.rows import Prompt
from aligner.errors import ModelError, Problem, RecipeError
from aligner.models.backbone import Backbone
from aligner.models.decoding import decode_responses
from aligner.models.heads import RewardModel
from aligner.models.wrapped import context_length
from aligner.recipe.ppo import RewardSource
from aligner.rl.answered import Answered
from aligner.rl.functions import FunctionReward, TokenReward, load_function
from aligner.rl.remote import HttpReward
from aligner.rl.rollout import Rollout
from aligner.rl.rules import RuleReward, read_rules


@dataclass(frozen=True)
class ModelReward:
    """A reward run's score on the scale stored with it, which is frozen: a running one would change beta.

    With `by_text`, which another vocabulary needs, prompt and answer are rendered for it from their texts.
    """

    model: RewardModel
    by_text: bool = False

    @property
    def identity(self) -> str:
        """Its weights."""
        return self.model.identity

    def __call__(self, answered: Answered) -> Tensor:
        """(B,), in standard deviations from the mean over the start model's answers."""
        rollout = answered.rollout
        if self.by_text:
            sequences, lengths = self.rendered(answered.rows, answered.texts, answered.finished)
        else:
            sequences = [[*prompt, *rollout.response(i)] for i, prompt in enumerate(rollout.prompts)]
            lengths = [len(prompt) for prompt in rollout.prompts]
        return self.model.normalised(sequences, lengths).to(rollout.logprobs_BR)

    def rendered(
        self, prompts: Sequence[Prompt], texts: Sequence[str], finished: Sequence[bool]
    ) -> tuple[list[list[int]], list[int]]:
        """Prompts with their answers in its own tokens, and how many of each are the prompt's."""
        longest = context_length(self.model.model)
        rows = tokenize_answers(prompts, texts, finished, self.model.tokenizer, max_length=longest)
        return [row.input_ids for row in rows], [row.prompt_length for row in rows]

    def told(self) -> str:
        """How it stands to the policy, in words."""
        frozen = f"a model of its own: {self.model.apart}" if self.model.apart else "on the policy's backbone"
        return f"{frozen}; it reads texts, by its own tokenizer" if self.by_text else frozen


Reward = ModelReward | FunctionReward | TokenReward | RuleReward | HttpReward


class Part(NamedTuple):
    """One of several rewards."""

    weight: float
    reward: Reward
    clip: float | None = None  # beyond +-clip, in the reward's own units, it counts as that

    def worth(self, answered: Answered) -> Tensor:
        """(B,), or (B, R) of a TokenReward; clipped, then weighed."""
        values = self.reward(answered)
        return self.weight * (values if self.clip is None else values.clamp(-self.clip, self.clip))


class Earned(NamedTuple):
    """What responses earned."""

    scores_B: Tensor  # for the whole response
    tokens_BR: Tensor | None  # for single tokens on top, 0 on padding; None where no reward gives any

    def total(self) -> Tensor:
        """Both together: (B,)."""
        return self.scores_B if self.tokens_BR is None else self.scores_B + self.tokens_BR.sum(dim=1)


@dataclass(frozen=True)
class Rewards:
    """The weighted sum of the recipe's rewards; `tokenizer` turns response tokens into text for functions."""

    parts: Sequence[Part]
    tokenizer: PreTrainedTokenizerBase

    def answered(self, rows: list[Prompt], rollout: Rollout) -> Answered:
        """The rollout with its texts, the end of text taken off."""
        responses = [rollout.response(i) for i in range(len(rows))]
        return Answered(rows, rollout, decode_responses(responses, self.tokenizer))

    def identities(self) -> dict[str, str]:
        """What each reward model and each file of rules is, by its place in the recipe."""
        rewards = [part.reward for part in self.parts]
        return {
            f"reward.{i}": reward.identity
            for i, reward in enumerate(rewards)
            if isinstance(reward, ModelReward | RuleReward)
        }

    def models(self) -> dict[str, ModelReward]:
        """The rewards that are models, by their places in the recipe."""
        numbered = enumerate(part.reward for part in self.parts)
        return {f"reward.{i}": reward for i, reward in numbered if isinstance(reward, ModelReward)}

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """DataError where a reward model that reads texts has a chat template that refuses a prompt."""
        for reward in self.models().values():
            if reward.by_text:
                check_prompts(prompts, reward.model.tokenizer)

    def earned(self, answered: Answered) -> Earned:
        """The weighted sums, of whole responses and of single tokens."""
        whole = [part.worth(answered) for part in self.parts if not isinstance(part.reward, TokenReward)]
        tokens = [part.worth(answered) for part in self.parts if isinstance(part.reward, TokenReward)]
        nothing_B = answered.rollout.logprobs_BR.new_zeros(len(answered.rows))
        return Earned(
            torch.stack(whole).sum(dim=0) if whole else nothing_B,
            torch.stack(tokens).sum(dim=0) if tokens else None,
        )

    def __call__(self, answered: Answered) -> Tensor:
        """All that each response earned: (B,)."""
        return self.earned(answered).total()


def load_rewards(
    sources: Sequence[RewardSource], tokenizer: PreTrainedTokenizerBase, backbone: Backbone | None = None
) -> Rewards:
    """Open every reward of the recipe, models last: all mistakes in naming the others are told before one is loaded.

    `tokenizer` is the policy's; a reward model of another vocabulary is given the texts. One that is an adapter over
    the weights of `backbone` shares them.
    """
    light = load_functions(sources)
    parts = []
    for number, source in enumerate(sources):
        reward: Reward = (
            light[number] if number in light else _open_model(str(source.model), tokenizer, backbone)
        )
        if source.dense and isinstance(reward, FunctionReward):
            reward = TokenReward(reward.name, load_function(reward.name), tokenizer)
        parts.append(Part(source.weight, reward, source.clip))
    return Rewards(parts, tokenizer)


def load_functions(sources: Sequence[RewardSource]) -> dict[int, FunctionReward | RuleReward | HttpReward]:
    """The rewards that are no models, by place; RecipeError with every mistake in naming them."""
    problems: list[Problem] = []
    found: dict[int, FunctionReward | RuleReward | HttpReward] = {}
    for number, source in enumerate(sources):
        try:
            if source.function is not None:
                found[number] = FunctionReward(source.function, load_function(source.function))
            elif source.rules is not None:
                found[number] = read_rules(source.rules)
            elif source.http is not None:
                spec = source.http
                found[number] = HttpReward(spec.url, spec.timeout_seconds, spec.retries)
        except RecipeError as error:
            named = source.function is not None  # rules have a file and a line to point to
            problems += [
                Problem(f"reward.{number}.function" if named else p.where, p.what, p.remedy)
                for p in error.problems
            ]
    if problems:
        raise RecipeError(problems)
    return found


def _open_model(path: str, tokenizer: PreTrainedTokenizerBase, backbone: Backbone | None) -> ModelReward:
    model = RewardModel.from_folder(path, backbone)
    if model.stats is None:
        raise ModelError(Problem(path, "has no stored reward scale", "name the run of a reward stage"))
    return ModelReward(model, by_text=model.tokenizer.get_vocab() != tokenizer.get_vocab())
