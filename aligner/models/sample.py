"""Sampling with a key/value cache, and the log-probabilities of given responses under a full forward pass.

B = rows, T = prompt tokens, R = response tokens, N = tokens that count, V = vocabulary, D = hidden size.
A mask is true where the token counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aligner.errors import ModelError, Problem, TrainingError
from aligner.models.cache import read_prompts, read_tokens
from aligner.models.linear import held_weights
from aligner.models.logprobs import read_logprobs
from aligner.models.padding import right_padded
from aligner.models.wrapped import context_length, device_of, eval_mode, text_config

LEAVE_SHARE = (
    0.25  # rows leave the batch once this share of it has finished; copying the cache costs about one step
)


class Responses(NamedTuple):
    """Sampled answers, in the order of the prompts."""

    ids_BR: Tensor  # long, pad_id after the end
    mask_BR: Tensor  # bool, true on real tokens, the end token included
    logprobs_BR: Tensor  # float32, nats, under softmax(logits / temperature) over the whole vocabulary; 0 after the end
    finished_B: Tensor  # bool, the row ended with eos
    values_BR: Tensor | None = None  # float32, what `value_head` said before each token; 0 after the end


class ResponseLogprobs(NamedTuple):
    """Given answers under a model, differentiable where the model is."""

    logprobs_BR: Tensor  # float32, nats; 0 where the mask is false
    entropy_BR: Tensor  # float32, nats, of what each token was drawn from; gradient only if asked for
    values_BR: Tensor | None = (
        None  # float32, what `value_head` says of what each token was drawn from; 0 as above
    )


def sample_responses(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    eos_id: int,
    pad_id: int,
    generator: torch.Generator | None = None,
    greedy: bool = False,
    batch_size: int = 256,
    autocast: bool = False,
    value_head: nn.Module | None = None,
) -> Responses:
    """Answer each prompt; nothing but the arguments decides how (the model's own generation config is not read).

    Each row owns its random numbers, drawn before the first step, so a row's answer does not depend on its batch.
    With `greedy` the likeliest token is taken; its log-probability is still the one at `temperature`. `value_head`,
    (B, D) -> (B,), reads the hidden state that each token is drawn from. TrainingError where a probability is NaN.
    """
    _check_lengths(model, prompts, max_new_tokens)
    num_rows, device = len(prompts), device_of(model)
    draws_device = generator.device if generator is not None else torch.device("cpu")
    noise_BR = torch.rand(num_rows, max_new_tokens, generator=generator, device=draws_device).to(device)
    out = _Answers.empty(num_rows, max_new_tokens, pad_id=pad_id, device=device)
    order = sorted(
        range(num_rows), key=lambda row: len(prompts[row])
    )  # equal lengths together: little padding
    rule = _Rule(temperature=temperature, eos_id=eos_id, pad_id=pad_id, greedy=greedy, value_head=value_head)
    with (
        torch.inference_mode(),
        eval_mode(model),
        torch.autocast(device.type, torch.bfloat16, enabled=autocast),
        held_weights(model),
    ):
        for start in range(0, num_rows, batch_size):
            rows = order[start : start + batch_size]
            _sample_batch(
                model, [prompts[row] for row in rows], torch.tensor(rows, device=device), noise_BR, rule, out
            )
    answers = out.trimmed(with_values=value_head is not None)
    if not bool(answers.logprobs_BR.isfinite().all()):
        remedy = "its weights have NaN or infinity among them: go back to an earlier model or checkpoint"
        raise TrainingError(Problem("model", "the probabilities that it samples from are no numbers", remedy))
    return answers


@dataclass(frozen=True)
class _Rule:
    """How a token is chosen and when a row ends."""

    temperature: float
    eos_id: int
    pad_id: int
    greedy: bool
    value_head: nn.Module | None  # (B, D) -> (B,)


@dataclass
class _Answers:
    """Where the rows write their tokens as they are sampled."""

    ids_BR: Tensor
    mask_BR: Tensor
    logprobs_BR: Tensor
    finished_B: Tensor
    values_BR: Tensor

    @classmethod
    def empty(cls, num_rows: int, width: int, *, pad_id: int, device: torch.device) -> _Answers:
        """No row has a token yet."""
        return cls(
            ids_BR=torch.full((num_rows, width), pad_id, dtype=torch.long, device=device),
            mask_BR=torch.zeros(num_rows, width, dtype=torch.bool, device=device),
            logprobs_BR=torch.zeros(num_rows, width, device=device),
            finished_B=torch.zeros(num_rows, dtype=torch.bool, device=device),
            values_BR=torch.zeros(num_rows, width, device=device),
        )

    def trimmed(self, *, with_values: bool) -> Responses:
        """As wide as the longest answer."""
        width = int(self.mask_BR.sum(dim=1).max()) if len(self.ids_BR) else 0
        # clone: leaves inference mode, so that the numbers may enter a loss
        return Responses(
            self.ids_BR[:, :width].clone(),
            self.mask_BR[:, :width].clone(),
            self.logprobs_BR[:, :width].clone(),
            self.finished_B.clone(),
            self.values_BR[:, :width].clone() if with_values else None,
        )


def _sample_batch(
    model: nn.Module,
    prompts: list[Sequence[int]],
    rows_B: Tensor,
    noise_BR: Tensor,
    rule: _Rule,
    out: _Answers,
) -> None:
    """Prefill once, then one token a step; finished rows write nothing more and leave when enough of them wait."""
    begun = read_prompts(model, prompts, pad_id=rule.pad_id, room=noise_BR.shape[1])
    first, mask_BT, positions_B1, cache = begun
    logits_BV, hidden_BD = first
    open_B, ids_B = torch.ones_like(rows_B, dtype=torch.bool), rows_B
    for step in range(noise_BR.shape[1]):
        if step:
            logits_BV, hidden_BD = read_tokens(model, ids_B[:, None], mask_BT, positions_B1, cache)
        ids_B, logprobs_B = choose_tokens(
            logits_BV, noise_BR[rows_B, step], temperature=rule.temperature, greedy=rule.greedy
        )
        ids_B = torch.where(open_B, ids_B, rule.pad_id)
        out.ids_BR[rows_B, step] = ids_B
        out.mask_BR[rows_B, step] = open_B
        out.logprobs_BR[rows_B, step] = torch.where(open_B, logprobs_B, 0.0)
        if rule.value_head is not None:
            out.values_BR[rows_B, step] = torch.where(open_B, rule.value_head(hidden_BD.float()).float(), 0.0)
        ended_B = open_B & (ids_B == rule.eos_id)
        out.finished_B[rows_B] |= ended_B
        open_B = open_B & ~ended_B
        num_open = int(open_B.sum())
        if num_open == 0:
            return
        positions_B1 = positions_B1 + 1
        mask_BT = torch.cat([mask_BT, torch.ones_like(mask_BT[:, :1])], dim=1)
        if num_open <= (1 - LEAVE_SHARE) * len(rows_B):
            keep = open_B.nonzero().squeeze(1)
            cache.batch_select_indices(keep)
            rows_B, open_B, ids_B = rows_B[keep], open_B[keep], ids_B[keep]
            mask_BT, positions_B1 = mask_BT[keep], positions_B1[keep]


def choose_tokens(
    logits_BV: Tensor, uniform_B: Tensor, *, temperature: float, greedy: bool = False
) -> tuple[Tensor, Tensor]:
    """One token a row and its log-probability (nats) under softmax(logits / temperature).

    Sampling inverts the cumulative distribution at the row's own uniform number in [0, 1). By hand: probabilities
    [.2, .5, .3] and u = .65 -> token 1, since .2 <= .65 < .7.
    """
    scaled_BV = logits_BV.float() / temperature
    scaled_BV = scaled_BV - scaled_BV.max(dim=-1, keepdim=True).values
    mass_BV = scaled_BV.exp().cumsum(
        dim=-1, dtype=torch.float64
    )  # float64: a wide vocabulary loses no rare token
    total_B1 = mass_BV[:, -1:]
    if greedy:
        ids_B1 = scaled_BV.argmax(dim=-1, keepdim=True)
    else:
        ids_B1 = torch.searchsorted(mass_BV, uniform_B.double()[:, None] * total_B1, right=True)
        ids_B1 = ids_B1.clamp(max=mass_BV.shape[1] - 1)  # among NaN it finds none
    return ids_B1.squeeze(1), (scaled_BV.gather(1, ids_B1) - total_B1.log().float()).squeeze(1)


def response_logprobs(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    ids_BR: Tensor,
    mask_BR: Tensor,
    *,
    temperature: float,
    pad_id: int,
    value_head: nn.Module | None = None,
    entropy_gradient: bool = False,
) -> ResponseLogprobs:
    """Log-probabilities of given responses, with gradient, by one full forward pass in the model's present mode.

    The head is computed at response positions only: prompts and padding cost no vocabulary-wide row. `mask_BR` is true
    on a row's first tokens and false after them. Autocast is the caller's choice; `value_head`, (N, D) -> (N,), reads
    in float32. The entropy has a gradient only with `entropy_gradient`.
    """
    device = device_of(model)
    ids_BR, mask_BR = ids_BR.to(device), mask_BR.to(device).bool()
    answers = [ids[mask].tolist() for ids, mask in zip(ids_BR, mask_BR, strict=True)]
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    ids_BT, _ = right_padded(rows, pad_id=pad_id, device=device)
    starts_B = (
        torch.tensor([len(prompt) for prompt in prompts], device=device) - 1
    )  # predicts the first answer token
    row_N, token_N = mask_BR.nonzero(as_tuple=True)
    columns_N = starts_B[row_N] + token_N
    # No attention mask: padding comes last, where causal attention cannot see it, and positions count from 0.
    inputs = {"input_ids": ids_BT, "use_cache": False}
    logprobs_N, entropy_N, hidden_ND = read_logprobs(
        model, inputs, row_N, columns_N, ids_BR[mask_BR], temperature
    )
    if not entropy_gradient:
        entropy_N = entropy_N.detach()
    found = [logprobs_N, entropy_N]
    if value_head is not None:
        with torch.autocast(device.type, enabled=False):
            found.append(value_head(hidden_ND.float()))
    zeros_BR = torch.zeros(mask_BR.shape, device=device)
    return ResponseLogprobs(*(zeros_BR.masked_scatter(mask_BR, x_N) for x_N in found))


def prompt_room(model: nn.Module, max_new_tokens: int) -> int:
    """Tokens the model's context leaves for a prompt; ModelError when that is none."""
    context = context_length(model)
    if max_new_tokens >= context:
        fault = f"{max_new_tokens} new tokens leave no room for a prompt in the model's context of {context}"
        raise ModelError(
            Problem("sampling.max_new_tokens", fault, "lower it, or start from a model with a longer context")
        )
    return context - max_new_tokens


def _check_lengths(model: nn.Module, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("a prompt has no tokens")
    context = getattr(text_config(model), "max_position_embeddings", None)
    longest = max((len(prompt) for prompt in prompts), default=0)
    if context is not None and longest + max_new_tokens > context:
        raise ModelError(
            Problem(
                "sampling.max_new_tokens",
                f"{longest} prompt tokens and {max_new_tokens} new ones exceed the model's context of {context}",
                f"use at most {max(context - longest, 0)} new tokens, or shorter prompts",
            )
        )
