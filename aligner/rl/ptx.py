"""The PTX mix of InstructGPT (Ouyang et al. 2022, arXiv:2203.02155, 3.5): text is gone on with beside the reward.

Their objective adds coef * E[log p(text)] to PPO's; here that is, in every optimiser step, coef times the mean
cross-entropy per token of some rows, its gradient added to PPO's before the two are clipped as one. (Their coefficient,
27.8, is for their scale of the sum: it does not carry over.)

N = blocks, B = blocks of a step, T = tokens of a block, V = vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aligner.rl.ranks import ALONE, Ranks
from aligner.rl.seeds import rows_at
from aligner.rl.state import Progress


@dataclass(frozen=True)
class PtxMix:
    """Blocks of text, and how much of them is learnt in each optimiser step. `progress` keeps the place."""

    model: nn.Module
    ids_NT: Tensor
    progress: Progress
    coef: float
    rows_per_step: int
    rows_per_device: int | None
    seed: int
    autocast: bool = False
    ranks: Ranks = ALONE

    def add_gradient(self) -> float:
        """Add the gradient of coef x the mean cross-entropy of the next rows; returns that mean, in nats.

        Of several ranks each adds its share of the gradient, and all have the mean.
        """
        rows = rows_at(
            self.progress.ptx_rows,
            self.rows_per_step,
            num_rows=len(self.ids_NT),
            seed=self.seed,
            purpose="ptx",
        )
        self.progress.ptx_rows += self.rows_per_step
        ids_BT = self.ids_NT[rows]
        num_tokens = ids_BT[:, 1:].numel()
        per_pass = (self.rows_per_device or len(ids_BT)) * self.ranks.count

        def learn() -> float:
            nats = 0.0
            for part_BT in torch.split(ids_BT, per_pass):
                own_BT = part_BT[self.ranks.rank :: self.ranks.count]
                # A rank without a row in it reads another's at weight 0: see Ranks.passes.
                weight = float(len(own_BT) > 0)
                loss = weight * self._nats(own_BT if weight else part_BT[:1]) / num_tokens
                torch.autograd.backward(self.coef * loss)
                nats += float(loss.detach())
            return nats

        return sum(self.ranks.together(learn))

    def _nats(self, ids_BT: Tensor) -> Tensor:
        """Cross-entropy of every token but a block's first, summed."""
        with torch.autocast(ids_BT.device.type, torch.bfloat16, enabled=self.autocast):
            logits_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
        return F.cross_entropy(
            logits_BTV[:, :-1].float().flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="sum"
        )
