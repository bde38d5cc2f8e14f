"""What a model says of given tokens: natural-log probabilities, batched by length.

Shapes: B sequences in a batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aligner.models.padding import right_padded
from aligner.models.sample import response_logprobs
from aligner.models.wrapped import device_of


@torch.no_grad()
def token_logprobs(
    model: torch.nn.Module,
    sequences: Sequence[Sequence[int]],
    *,
    batch_size: int,
    pad_id: int,
    temperature: float = 1.0,
) -> list[Tensor]:
    """log p(token t | tokens before it) in nats for every token but the first, one CPU float32 tensor a sequence.

    p is softmax(logits / temperature) over the whole vocabulary.

    Sequences are padded on the right and masked, longest first, so that a batch holds little padding; the order of
    the result is that of `sequences`.
    """
    device = device_of(model)
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
    found: list[Tensor] = [torch.zeros(0)] * len(sequences)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        ids_BT, mask_BT = right_padded([sequences[row] for row in rows], pad_id=pad_id, device=device)
        output = model(input_ids=ids_BT, attention_mask=mask_BT.long(), use_cache=False)
        logits_BTV = output.logits[:, :-1].float() / temperature
        targets_BT = ids_BT[:, 1:]
        picked_BT = logits_BTV.gather(2, targets_BT.unsqueeze(2)).squeeze(2)
        logprobs_BT = (picked_BT - torch.logsumexp(logits_BTV, dim=2)).cpu()
        for i, row in enumerate(rows):
            found[row] = logprobs_BT[i, : max(0, len(sequences[row]) - 1)].clone()
    return found


@torch.no_grad()
def answer_logprobs(
    model: torch.nn.Module,
    sequences: Sequence[Sequence[int]],
    prompt_lengths: Sequence[int],
    *,
    batch_size: int,
    pad_id: int,
    temperature: float = 1.0,
) -> list[float]:
    """Sum of log p over the tokens after the first `prompt_length` ones, in nats, for each sequence.

    Every sequence has at least one token in its prompt and one in its answer.
    """
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
    found = [0.0] * len(sequences)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        prompts = [sequences[row][: prompt_lengths[row]] for row in rows]
        answers = [sequences[row][prompt_lengths[row] :] for row in rows]
        ids_BR, mask_BR = right_padded(answers, pad_id=pad_id, device=device_of(model))
        scored = response_logprobs(model, prompts, ids_BR, mask_BR, temperature=temperature, pad_id=pad_id)
        for row, total in zip(rows, scored.logprobs_BR.cpu().double().sum(dim=1).tolist(), strict=True):
            found[row] = total
    return found
