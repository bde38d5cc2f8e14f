"""The likelihood of an answer as its reward, against transformers' own logits, one row at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from aligner.models.adapters import attach_lora
from aligner.models.heads import RewardModel
from aligner.models.padding import right_padded
from aligner.models.scoring import Scoring, likelihood_scores
from aligner.recipe.model import LoraSpec
from tests.models.test_adapters import stirred
from tests.tiny import tiny_model, tiny_tokenizer

CPU = torch.device("cpu")
ARCHITECTURES = ("llama", "gpt_neox", "qwen3")
SEQUENCES = [
    [1, 4, 9, 30, 5],
    [1, 4, 9],
    [1, 4, 77, 80, 2, 2],
    [1, 4, 8, 0, 0],  # ends in pad ids that count
    [1, 0, 12, 0, 33, 41, 9, 2],  # pad ids inside prompt and answer
    [1, 6, 7],  # no answer at all
]
LENGTHS = [2, 1, 4, 3, 3, 3]
LIKELIHOOD = Scoring("likelihood", 0.25)


def answer_nats(model: nn.Module, ids: Sequence[int], prompt_length: int) -> Tensor:
    """Sum of log p over the answer's tokens, from a plain forward pass of this row alone."""
    logprobs = model(torch.tensor([list(ids)])).logits[0].log_softmax(dim=-1)
    picked = [logprobs[at - 1, ids[at]] for at in range(prompt_length, len(ids))]
    return torch.stack(picked).sum() if picked else logprobs.sum() * 0


def by_hand(model: nn.Module) -> Tensor:
    return torch.stack([answer_nats(model, *row) for row in zip(SEQUENCES, LENGTHS, strict=True)])


def batched(model: nn.Module, *, pad_id: int = 0) -> Tensor:
    ids, mask = right_padded(SEQUENCES, pad_id=pad_id, device=CPU)
    return likelihood_scores(model, ids, mask, torch.tensor(LENGTHS))


@torch.no_grad()
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [True, False])
def test_the_score_is_the_sum_over_the_answers_tokens_alone(architecture: str, tied: bool):
    model = stirred(tiny_model(architecture=architecture, tie_embeddings=tied))
    want = by_hand(model)
    assert want[:5].max() < -1 and want[5] == 0
    for pad_id in (0, 2, 200):
        torch.testing.assert_close(batched(model, pad_id=pad_id), want, atol=1e-5, rtol=1e-5)
    ids, mask = right_padded(SEQUENCES, pad_id=0, device=CPU)
    lengths = torch.tensor(LENGTHS)
    torch.testing.assert_close(
        likelihood_scores(model, ids, mask.long(), lengths), want, atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_scores_do_not_depend_on_batch_order_or_padding():
    model = stirred(tiny_model())
    reward, want = RewardModel(model, tiny_tokenizer(), scoring=LIKELIHOOD), 0.25 * by_hand(model)
    for size in (1, 2, 3, 64):
        scores = reward.score(SEQUENCES, LENGTHS, batch_size=size)
        torch.testing.assert_close(scores, want, atol=1e-5, rtol=1e-5)
    backwards = reward.score(SEQUENCES[::-1], LENGTHS[::-1], batch_size=2)
    torch.testing.assert_close(backwards, want.flip(0), atol=1e-5, rtol=1e-5)
    assert reward.score([], []).shape == (0,)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_gradients_are_those_of_the_sum(architecture: str, lora: bool):
    model = tiny_model(architecture=architecture)
    model = stirred(attach_lora(model, LoraSpec(rank=2), "CAUSAL_LM") if lora else model)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.7, 4.0])  # a row taken for another would be seen
    ours = torch.autograd.grad((batched(model) * weights).sum(), list(trained.values()))
    wanted = torch.autograd.grad((by_hand(model) * weights).sum(), list(trained.values()))
    scale = max(float(want.abs().max()) for want in wanted)
    assert scale > 0.1
    for name, one, want in zip(trained, ours, wanted, strict=True):
        assert float((one - want).abs().max()) <= 1e-5 * scale, name


@torch.no_grad()
def test_beta_multiplies_the_likelihood():
    model = stirred(tiny_model())
    ids, mask = right_padded(SEQUENCES, pad_id=0, device=CPU)
    for beta in (0.05, 1.0, 3.0):
        scores = Scoring("likelihood", beta).scores(model, ids, mask, torch.tensor(LENGTHS))
        torch.testing.assert_close(scores, beta * by_hand(model), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_output_layer_is_whole_again_afterwards():
    model = stirred(tiny_model())
    ids = torch.tensor([SEQUENCES[0]])
    before = model(ids).logits
    batched(model)
    assert torch.equal(model(ids).logits, before)
    head = model.get_output_embeddings()
    with pytest.raises(IndexError):
        likelihood_scores(model, torch.tensor([[10**6, 1]]), torch.ones(1, 2), torch.tensor([1]))
    assert not head._forward_pre_hooks
