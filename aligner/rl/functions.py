"""Rewards in Python: found by name, called with what was said.

B = episodes, R = response positions.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from aligner.data.rows import Prompt
from aligner.errors import Problem, RecipeError, nearest
from aligner.rl.answered import Answered, check_count, finite


class RewardFunction(Protocol):
    """A reward in Python: one finite number a response. `finished` is False where the length limit cut it."""

    def __call__(self, rows: list[Prompt], responses: list[str], finished: list[bool]) -> Sequence[float]: ...


class TokenRewardFunction(Protocol):
    """The same for every token: `responses` are the texts of each response's tokens, the end token's included."""

    def __call__(
        self, rows: list[Prompt], responses: list[list[str]], finished: list[bool]
    ) -> Sequence[Sequence[float]]: ...


@dataclass(frozen=True)
class FunctionReward:
    """A Python function's numbers, as they are."""

    name: str
    function: RewardFunction

    def __call__(self, answered: Answered) -> Tensor:
        """(B,). RecipeError when the function does not give one finite number a response."""
        values = self.function(answered.rows, answered.texts, answered.finished)
        return answered.numbers(values, self.name)


@dataclass(frozen=True)
class TokenReward:
    """A Python function's numbers for every token."""

    name: str
    function: TokenRewardFunction
    tokenizer: PreTrainedTokenizerBase

    def __call__(self, answered: Answered) -> Tensor:
        """(B, R), 0 where no token is. RecipeError when the function does not give one finite number a token."""
        rollout = answered.rollout
        pieces = [
            [str(self.tokenizer.decode([token])) for token in rollout.response(i)]
            for i in range(len(answered.rows))
        ]
        values = self.function(answered.rows, pieces, answered.finished)
        check_count(len(values), len(pieces), self.name, "responses")
        for given, wanted in zip(values, pieces, strict=True):
            check_count(len(given), len(wanted), self.name, "tokens")
        flat = [
            finite(x, self.name, text) for row, text in zip(values, answered.texts, strict=True) for x in row
        ]
        rewards_N = torch.tensor(flat, device=rollout.logprobs_BR.device)
        return torch.zeros_like(rollout.logprobs_BR).masked_scatter(rollout.mask_BR, rewards_N)


def load_function(name: str) -> Any:
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
    return found


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
