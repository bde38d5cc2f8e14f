"""How a reward model turns a prompt with its answer into one number.

B = rows, T = tokens, N = answer tokens of all rows, V = vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aligner.models.wrapped import only_rows, output_head, unwrapped


@dataclass(frozen=True)
class Scoring:
    """`head`: a linear layer over the last token. `likelihood`: `beta` x the answer's log-likelihood, in nats."""

    kind: Literal["head", "likelihood"] = "head"
    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("head", "likelihood"):  # it may come from a file
            raise ValueError(f'"{self.kind}" is no way to score; head and likelihood are')
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise ValueError(f"beta is {self.beta}, which is no scale")

    def scores(self, model: nn.Module, ids_BT: Tensor, mask_BT: Tensor, prompt_lengths_B: Tensor) -> Tensor:
        """(B,) float32, differentiable. `mask_BT` is true where a token counts; an answer follows its prompt."""
        if self.kind == "head":
            return pooled_scores(model, ids_BT, mask_BT)
        return self.beta * likelihood_scores(model, ids_BT, mask_BT, prompt_lengths_B)


def likelihood_scores(model: nn.Module, ids_BT: Tensor, mask_BT: Tensor, prompt_lengths_B: Tensor) -> Tensor:
    """log p(answer | prompt) of each row, in nats, its end token included: (B,) float32, differentiable.

    The reward that is implicit in a language model (Rafailov et al. 2023, arXiv:2305.18290), without a reference model
    (CPO: Xu et al. 2024, arXiv:2401.08417). A small model can write a right answer long before a head over its last
    token can tell one from a wrong one; this reward starts from what it can write.
    """
    places_T = torch.arange(mask_BT.shape[1] - 1, device=mask_BT.device)
    answer_BT = mask_BT[:, 1:].bool() & (places_T + 1 >= prompt_lengths_B[:, None])
    said_BT = F.pad(answer_BT, (0, 1))  # position t says token t + 1
    with only_rows(output_head(model), said_BT):
        logits_NV = model(input_ids=ids_BT, attention_mask=mask_BT.long(), use_cache=False).logits
    logprobs_N = -F.cross_entropy(logits_NV.float(), ids_BT[:, 1:][answer_BT], reduction="none")
    totals_B = torch.zeros(len(ids_BT), device=ids_BT.device)
    return totals_B.index_add(0, said_BT.nonzero()[:, 0], logprobs_N)


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
