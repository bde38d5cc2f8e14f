"""What gives numbers: a trained reward model, and the value head of PPO's critic.

B = rows, T = tokens, D = hidden size. A mask is true where the token counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aligner.errors import ModelError, Problem
from aligner.models.adapters import Task
from aligner.models.backbone import Backbone, stand_on
from aligner.models.fast import hasten
from aligner.models.load import load_scorer, load_trained
from aligner.models.padding import right_padded
from aligner.models.scoring import Scoring
from aligner.models.sources import resolve_source
from aligner.models.wrapped import device_of, unwrapped

STATS_FILE = "reward_stats.json"


@dataclass(frozen=True)
class RewardStats:
    """How a reward model scores, and its scale: mean and standard deviation of its raw scores over `rows` answers."""

    mean: float
    std: float
    rows: int
    scoring: Scoring = field(default_factory=Scoring)


class RewardModel:
    """A reward model as its stage saved it, frozen.

    `apart`: why its weights are its own; "" where it stands on a backbone that others share.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        identity: str = "",
        stats: RewardStats | None = None,
        scoring: Scoring | None = None,
        apart: str = "it was asked to stand alone",
    ) -> None:
        self.model = hasten(model.eval())
        self.scoring = scoring or (stats.scoring if stats else Scoring())
        self.tokenizer = tokenizer
        self.identity = identity
        self.stats = stats
        self.apart = apart

    @classmethod
    def from_folder(cls, path: str | Path, backbone: Backbone | None = None) -> RewardModel:
        """From a reward run, its model/ folder or a Hub id.

        An adapter that was trained over the weights of `backbone` is put on those; any other finds its base by itself.
        """
        source = resolve_source(str(path))
        found = source.file(STATS_FILE)
        stats = read_stats(found) if found else None
        is_likelihood = stats is not None and stats.scoring.kind == "likelihood"
        task: Task = "CAUSAL_LM" if is_likelihood else "SEQ_CLS"
        apart = backbone.unlike(source, task) if backbone else "it was asked to stand alone"
        if backbone and apart is None:
            loaded = stand_on(backbone, source, task)
        else:
            loaded = load_trained(path) if is_likelihood else load_scorer(path)
        return cls(loaded.model, loaded.tokenizer, identity=loaded.identity, stats=stats, apart=apart or "")

    @property
    def mean(self) -> float:
        """Mean raw score of the start model's answers."""
        return self._scale().mean

    @property
    def std(self) -> float:
        """Standard deviation of those scores."""
        return self._scale().std

    def score(
        self, sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int], *, batch_size: int = 64
    ) -> Tensor:
        """Raw score of each sequence of token ids, in their order: (B,) float32 on the CPU.

        Each sequence is a prompt of `prompt_lengths` tokens, at least one, and its answer.
        """
        order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
        scores_B = torch.zeros(len(sequences))
        device = device_of(self.model)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            ids_BT, mask_BT = right_padded(
                [sequences[row] for row in rows], pad_id=self.tokenizer.pad_token_id, device=device
            )
            lengths_B = torch.tensor([prompt_lengths[row] for row in rows], device=device)
            with torch.no_grad():
                scores_B[rows] = self.scoring.scores(self.model, ids_BT, mask_BT, lengths_B).cpu()
        return scores_B

    def normalised(
        self, sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int], *, batch_size: int = 64
    ) -> Tensor:
        """Scores in standard deviations from the stored mean: (B,)."""
        return (self.score(sequences, prompt_lengths, batch_size=batch_size) - self.mean) / self.std

    def _scale(self) -> RewardStats:
        if self.stats is None:
            fault = f"has no {STATS_FILE}, so its scores have no scale"
            raise ModelError(
                Problem(self.identity or "reward model", fault, "name the run of a reward stage")
            )
        return self.stats


def write_stats(folder: Path, stats: RewardStats) -> None:
    """Store the scale beside the weights; PPO reads it, frozen."""
    mean, std = stats.mean, stats.std
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        fault = (
            f"rewards of {stats.rows} answers have mean {mean} and standard deviation {std}: that is no scale"
        )
        raise ModelError(
            Problem(str(folder), fault, "train longer, lower the learning rate, or normalise on more prompts")
        )
    text = json.dumps(asdict(stats), indent=2)
    (folder / STATS_FILE).write_text(text + "\n", encoding="utf-8")


def read_stats(path: Path) -> RewardStats:
    """The scale `write_stats` stored."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return RewardStats(**(stored | {"scoring": Scoring(**stored.get("scoring", {}))}))
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            Problem(str(path), f"cannot be read: {error}", "run the reward stage again")
        ) from error


class ValueTrunk(nn.Module):
    """What a value head reads instead of the policy's hidden states: the frozen backbone under an adapter of its own.

    Shapes as in `aligner.rl`: B episodes, R response positions.
    """

    def __init__(self, adapted: PeftModel) -> None:
        super().__init__()
        self.adapter = hasten(unwrapped(adapted).base_model.eval())

    def forward(
        self, prompts: Sequence[Sequence[int]], ids_BR: Tensor, mask_BR: Tensor, pad_id: int
    ) -> Tensor:
        """The hidden state that each response token follows, what stands where there is none aside: (B, R, D)."""
        answers = [ids[mask][:-1].tolist() for ids, mask in zip(ids_BR, mask_BR, strict=True)]
        rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        # No attention mask: padding comes last, where causal attention cannot see it.
        ids_BT, _ = right_padded(rows, pad_id=pad_id, device=ids_BR.device)
        hidden_BTD = self.adapter(input_ids=ids_BT, use_cache=False).last_hidden_state
        starts_B = torch.tensor([len(prompt) - 1 for prompt in prompts], device=ids_BR.device)
        places_BR = starts_B[:, None] + torch.arange(mask_BR.shape[1], device=ids_BR.device)
        places_BR = places_BR.clamp(max=hidden_BTD.shape[1] - 1)
        return hidden_BTD.gather(1, places_BR[..., None].expand(-1, -1, hidden_BTD.shape[-1]))

    def trained(self) -> dict[str, nn.Parameter]:
        """The adapter's weights, by name."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}


class ValueHead(nn.Module):
    """One number per position from hidden states; starts at 0 everywhere, so that it favours no token."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T)."""
        return self.linear(hidden_BTD).squeeze(-1)
