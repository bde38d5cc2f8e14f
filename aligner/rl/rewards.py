"""What a response is worth: reward models and Python functions, added up by weight."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from aligner.data.rows import Prompt
from aligner.errors import ModelError, Problem, RecipeError, nearest
from aligner.models.decoding import decode_responses
from aligner.models.heads import RewardModel
from aligner.recipe.ppo import RewardSource
from aligner.rl.rollout import Rollout


class RewardFunction(Protocol):
    """A reward in Python: one finite number a response. `finished` is False where the length limit cut it."""

    def __call__(self, rows: list[Prompt], responses: list[str], finished: list[bool]) -> Sequence[float]: ...


@dataclass(frozen=True)
class Answered:
    """A rollout as rewards see it."""

    rows: list[Prompt]
    rollout: Rollout
    texts: list[str]


@dataclass(frozen=True)
class ModelReward:
    """A reward run's score on the scale stored with it, which is frozen: a running one would change beta."""

    model: RewardModel

    def __call__(self, answered: Answered) -> Tensor:
        """(B,), in standard deviations from the mean over the start model's answers."""
        rollout = answered.rollout
        sequences = [[*prompt, *rollout.response(i)] for i, prompt in enumerate(rollout.prompts)]
        lengths = [len(prompt) for prompt in rollout.prompts]
        return self.model.normalised(sequences, lengths).to(rollout.logprobs_BR)


@dataclass(frozen=True)
class FunctionReward:
    """A Python function's numbers, as they are."""

    name: str
    function: RewardFunction

    def __call__(self, answered: Answered) -> Tensor:
        """(B,). RecipeError when the function does not give one finite number a response."""
        finished = answered.rollout.finished_B.tolist()
        values = [float(value) for value in self.function(answered.rows, answered.texts, finished)]
        if len(values) != len(finished):
            fault = f"{self.name} gave {len(values)} numbers for {len(finished)} responses"
            raise RecipeError(Problem("reward", fault, "return one float per response, in their order"))
        for value, text in zip(values, answered.texts, strict=True):
            if not math.isfinite(value):
                fault = f"{self.name} gave {value} for the response {text!r}"
                raise RecipeError(Problem("reward", fault, "return finite floats"))
        return torch.tensor(values, device=answered.rollout.logprobs_BR.device)


class Part(NamedTuple):
    """One of several rewards."""

    weight: float
    reward: ModelReward | FunctionReward


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
        """What each reward model is, by its place in the recipe."""
        rewards = [part.reward for part in self.parts]
        return {
            f"reward.{i}": reward.model.identity
            for i, reward in enumerate(rewards)
            if isinstance(reward, ModelReward)
        }

    def __call__(self, answered: Answered) -> Tensor:
        """The weighted sum: (B,)."""
        return torch.stack([part.weight * part.reward(answered) for part in self.parts]).sum(dim=0)


def load_rewards(sources: Sequence[RewardSource], tokenizer: PreTrainedTokenizerBase) -> Rewards:
    """Open every reward of the recipe, functions first: all mistakes in naming them are told before a model is loaded.

    `tokenizer` is the policy's; a reward model must have the same vocabulary: it reads the sampled tokens.
    """
    functions = load_functions(sources)
    parts = []
    for source in sources:
        reward = functions[source.function] if source.function else _open_model(str(source.model), tokenizer)
        parts.append(Part(source.weight, reward))
    return Rewards(parts, tokenizer)


def load_functions(sources: Sequence[RewardSource]) -> dict[str, FunctionReward]:
    """The Python functions among the sources, by name; RecipeError that names every one that is not there."""
    problems: list[Problem] = []
    functions: dict[str, FunctionReward] = {}
    for number, source in enumerate(sources):
        if source.function is not None:
            try:
                functions[source.function] = FunctionReward(source.function, load_function(source.function))
            except RecipeError as error:
                problems += [Problem(f"reward.{number}.function", p.what, p.remedy) for p in error.problems]
    if problems:
        raise RecipeError(problems)
    return functions


def _open_model(path: str, tokenizer: PreTrainedTokenizerBase) -> ModelReward:
    model = RewardModel.from_folder(path)
    if model.tokenizer.get_vocab() != tokenizer.get_vocab():
        fault = "its vocabulary is not the policy's, so it cannot read the sampled tokens"
        raise ModelError(Problem(path, fault, "train the reward model from the same base as the policy"))
    if model.stats is None:
        raise ModelError(Problem(path, "has no stored reward scale", "name the run of a reward stage"))
    return ModelReward(model)


def load_function(name: str) -> RewardFunction:
    """The function called "module:function", the working folder's own modules included; else RecipeError."""
    module_name, colon, function_name = name.partition(":")
    if not (module_name and colon and function_name):
        raise RecipeError(
            Problem("reward.function", f'"{name}" names no function', 'write "module:function"')
        )
    with _working_folder_importable():
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            remedy = "install the module, or run from the folder it lies in"
            fault = f'"{module_name}" cannot be imported: {error}'
            raise RecipeError(Problem("reward.function", fault, remedy)) from error
    found = getattr(module, function_name, None)
    if not callable(found):
        offered = sorted(
            key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
        )
        what = f'"{module_name}" has no function "{function_name}"'
        remedy = nearest(function_name, offered) if offered else "the module has no functions"
        raise RecipeError(Problem("reward.function", what, remedy))
    return found  # type: ignore[no-any-return]


@contextmanager
def _working_folder_importable() -> Iterator[None]:
    """A console command does not look for modules in the folder it is run from; a user's own rewards lie there."""
    folder = str(Path.cwd())
    if folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
