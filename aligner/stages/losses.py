"""Losses and scores of the supervised stages: sums over what counts, divided by nothing yet.

The caller divides by the count of the whole optimiser step, so that cutting a step into micro-batches changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from aligner.models.wrapped import only_rows

IGNORED = -100  # target of a position that is not learnt


def next_token_nats(model: nn.Module, head: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Sum of the cross-entropy, in nats, over the positions whose target counts: a scalar.

    batch: `targets` (B, T), the id that position t has to predict (the token at t + 1), `IGNORED` where nothing is
    learnt; the rest, `lengths` aside, (`input_ids`, `attention_mask`, ...) goes to the model. `head` is the model's
    output layer.
    """
    targets_BT = batch["targets"]
    mask_BT = targets_BT != IGNORED
    inputs = {name: tensor for name, tensor in batch.items() if name not in ("targets", "lengths")}
    with only_rows(head, mask_BT):
        logits_NV = model(**inputs, use_cache=False).logits
    return F.cross_entropy(logits_NV.float(), targets_BT[mask_BT], reduction="sum")


def bradley_terry_nats(
    chosen_B: Tensor, rejected_B: Tensor, margin_B: Tensor | None = None, weight_B: Tensor | None = None
) -> Tensor:
    """Sum over the pairs of -log P(chosen beats rejected), in nats, times their weights, if any: a scalar.

    Bradley and Terry 1952, as -log sigmoid(chosen - rejected - margin); margins: Llama 2 (arXiv:2307.09288, eq. 2).
    By hand: equal scores, no margin -> log 2 a pair.
    """
    gap_B = chosen_B - rejected_B
    log_share_B = F.logsigmoid(gap_B if margin_B is None else gap_B - margin_B)
    return -(log_share_B if weight_B is None else weight_B * log_share_B).sum()
