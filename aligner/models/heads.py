"""Heads that give numbers: a trained reward model, and the value head of PPO's critic.

B = rows, T = tokens, D = hidden size. A mask is true where the token counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aligner.errors import ModelError, Problem
from aligner.models.load import load_scorer
from aligner.models.padding import right_padded
from aligner.models.sources import resolve_source
from aligner.models.wrapped import device_of, unwrapped

STATS_FILE = "reward_stats.json"


@dataclass(frozen=True)
class RewardStats:
    """The scale of a reward model: mean and standard deviation of its raw scores over `rows` sampled answers."""

    mean: float
    std: float
    rows: int


class RewardModel:
    """A reward model as its stage saved it, frozen."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        identity: str = "",
        stats: RewardStats | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.identity = identity
        self.stats = stats

    @classmethod
    def from_folder(cls, path: str | Path) -> RewardModel:
        """From a reward run, its model/ folder or a Hub id; an adapter finds its base by itself."""
        loaded = load_scorer(path)
        stats = resolve_source(str(path)).file(STATS_FILE)
        return cls(
            loaded.model,
            loaded.tokenizer,
            identity=loaded.identity,
            stats=read_stats(stats) if stats else None,
        )

    @property
    def mean(self) -> float:
        """Mean raw score of the start model's answers."""
        return self._scale().mean

    @property
    def std(self) -> float:
        """Standard deviation of those scores."""
        return self._scale().std

    def score(self, sequences: Sequence[Sequence[int]], *, batch_size: int = 64) -> Tensor:
        """Raw score of each sequence of token ids, in their order: (B,) float32 on the CPU."""
        order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
        scores_B = torch.zeros(len(sequences))
        device = device_of(self.model)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            ids_BT, mask_BT = right_padded(
                [sequences[row] for row in rows], pad_id=self.tokenizer.pad_token_id, device=device
            )
            with torch.no_grad():
                scores_B[rows] = pooled_scores(self.model, ids_BT, mask_BT).cpu()
        return scores_B

    def normalised(self, sequences: Sequence[Sequence[int]], *, batch_size: int = 64) -> Tensor:
        """Scores in standard deviations from the stored mean: (B,)."""
        return (self.score(sequences, batch_size=batch_size) - self.mean) / self.std

    def _scale(self) -> RewardStats:
        if self.stats is None:
            fault = f"has no {STATS_FILE}, so its scores have no scale"
            raise ModelError(
                Problem(self.identity or "reward model", fault, "name the run of a reward stage")
            )
        return self.stats


def pooled_scores(model: nn.Module, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Score at each row's last real token: (B,) float32, differentiable.

    The mask says where a row ends, so an end or pad token inside an answer is a token like any other; transformers
    looks for the last id that is not config.pad_token_id instead. A hook, so that the pass goes through every wrapper.
    """
    seen: list[Tensor] = []
    head = unwrapped(model).score
    handle = head.register_forward_hook(lambda _module, _args, scores_BT1: seen.append(scores_BT1))
    try:
        model(input_ids=ids_BT, attention_mask=mask_BT.long(), use_cache=False)
    finally:
        handle.remove()
    positions_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    last_B = (positions_T * mask_BT).argmax(dim=1)
    return seen[0][torch.arange(len(last_B), device=last_B.device), last_B, 0].float()


def write_stats(folder: Path, *, mean: float, std: float, rows: int) -> None:
    """Store the scale beside the weights; PPO reads it, frozen."""
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        fault = f"rewards of {rows} answers have mean {mean} and standard deviation {std}: no scale can be made of them"
        raise ModelError(
            Problem(str(folder), fault, "train longer, lower the learning rate, or normalise on more prompts")
        )
    text = json.dumps({"mean": mean, "std": std, "rows": rows}, indent=2)
    (folder / STATS_FILE).write_text(text + "\n", encoding="utf-8")


def read_stats(path: Path) -> RewardStats:
    """The scale `write_stats` stored."""
    try:
        return RewardStats(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ModelError(
            Problem(str(path), f"cannot be read: {error}", "run the reward stage again")
        ) from error


class ValueHead(nn.Module):
    """One number per position from the policy's hidden states; starts at 0 everywhere, so that it favours no token."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T)."""
        return self.linear(hidden_BTD).squeeze(-1)
