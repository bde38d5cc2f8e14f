"""A model's answers to prompts, as text and as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from aligner.models.decoding import decode_responses
from aligner.models.sample import sample_responses
from aligner.models.wrapped import device_of


@dataclass(frozen=True)
class Answers:
    """One entry a prompt.

    texts: see `decode_responses`; token_ids: as sampled, the end token included; logprobs: sum over the
    response of log p under the sampling distribution, in nats; finished: whether the end token came.
    """

    texts: list[str]
    token_ids: list[list[int]]
    logprobs: list[float]
    finished: list[bool]

    def part(self, start: int, end: int) -> Answers:
        """The answers to the prompts from number `start` to before `end`."""
        return Answers(
            self.texts[start:end],
            self.token_ids[start:end],
            self.logprobs[start:end],
            self.finished[start:end],
        )


def sample_answers(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    greedy: bool = False,
    seed: int = 0,
    batch_size: int = 256,
    stop_id: int | None = None,
) -> Answers:
    """Sample (or decode greedily) one answer to each prompt; `stop_id` ends it in place of the end-of-text token."""
    responses = sample_responses(
        model,
        [list(prompt) for prompt in prompts],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        eos_id=tokenizer.eos_token_id if stop_id is None else stop_id,
        pad_id=tokenizer.pad_token_id,
        generator=torch.Generator(device=device_of(model)).manual_seed(seed),
        greedy=greedy,
        batch_size=batch_size,
    )
    mask_BR = responses.mask_BR.cpu()
    lengths = mask_BR.sum(dim=1).tolist()
    token_ids = [ids[:length] for ids, length in zip(responses.ids_BR.tolist(), lengths, strict=True)]
    logprobs = (responses.logprobs_BR.cpu().double() * mask_BR).sum(dim=1).tolist()
    return Answers(decode_responses(token_ids, tokenizer), token_ids, logprobs, responses.finished_B.tolist())
