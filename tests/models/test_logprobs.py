"""Chunked log-probabilities against torch.distributions, autograd on the definition, and a count of what is kept."""

import math

import pytest
import torch
from torch.distributions import Categorical

from aligner.models.logprobs import token_logprobs


def some(
    rows: int = 50, vocab: int = 33, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(rows, vocab, generator=generator, dtype=dtype)
    return logits.requires_grad_(), torch.randint(vocab, (rows,), generator=generator)


def test_by_hand():
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    logprobs, entropy = token_logprobs(logits, torch.tensor([0]), temperature=1.0)
    assert logprobs.item() == pytest.approx(math.log(0.5)) and entropy.item() == pytest.approx(
        1.5 * math.log(2)
    )


@pytest.mark.parametrize("chunk", [1, 33 * 7, 1 << 20])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_are_those_of_the_definition(
    monkeypatch: pytest.MonkeyPatch, chunk: int, temperature: float
):
    monkeypatch.setitem(__import__("aligner.models.logprobs", fromlist=["CHUNK"]).CHUNK, "cpu", chunk)
    (logits, ids), (again, _) = some(dtype=torch.float32), some(dtype=torch.float32)
    mix = torch.linspace(-1, 1, len(ids))
    logprobs, entropy = token_logprobs(logits, ids, temperature=temperature)
    (logprobs * mix + entropy * mix.flip(0)).sum().backward()
    wanted = Categorical(logits=again / temperature)
    (wanted.log_prob(ids) * mix + wanted.entropy() * mix.flip(0)).sum().backward()
    torch.testing.assert_close(logprobs, wanted.log_prob(ids), atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy, wanted.entropy(), atol=1e-5, rtol=0)
    torch.testing.assert_close(logits.grad, again.grad, atol=1e-6, rtol=1e-5)


def test_tokens_that_cannot_come_have_no_say():
    logits = torch.tensor([[0.0, -torch.inf, 0.0]], requires_grad=True)
    logprobs, entropy = token_logprobs(logits, torch.tensor([0]), temperature=1.0)
    assert entropy.item() == pytest.approx(math.log(2))
    (logprobs.sum() + entropy.sum()).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, 0.0, -0.5]]))


def test_low_precision_logits_and_no_rows():
    logits, ids = some(dtype=torch.float32)
    rough = logits.detach().bfloat16().requires_grad_()
    logprobs, entropy = token_logprobs(rough, ids, temperature=1.0)
    assert logprobs.dtype == entropy.dtype == torch.float32
    logprobs.sum().backward()
    assert rough.grad.dtype == torch.bfloat16
    torch.testing.assert_close(logprobs.detach(), Categorical(logits=rough.detach().float()).log_prob(ids))
    none, _ = token_logprobs(logits[:0], ids[:0], temperature=1.0)
    assert none.shape == (0,)


def test_nothing_vocabulary_wide_is_kept_but_the_logits():
    logits, ids = some(rows=400, vocab=100, dtype=torch.float32)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        token_logprobs(logits, ids, temperature=0.5)
    wide = [x for x in kept if x.ndim == 2]
    assert len(wide) == 1 and wide[0].data_ptr() == logits.data_ptr()
