"""The three estimators on a vocabulary small enough to take expectations exactly."""

import pytest
import torch

from aligner.rl.kl import k1, k2, k3, nats_per_response

POLICY = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
REFERENCE = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).log_softmax(0)


def exact_kl(logits):
    logprobs = logits.log_softmax(0)
    return (logprobs.exp() * (logprobs - REFERENCE)).sum()


def forward_kl(logits):
    return (REFERENCE.exp() * (REFERENCE - logits.log_softmax(0))).sum()


def gradient(function):
    logits = POLICY.clone().requires_grad_()
    function(logits).backward()
    return logits.grad


def expected_gradient(estimator):
    """E over tokens drawn from the policy of the estimator's gradient (the drawing itself not differentiated)."""
    weights = POLICY.softmax(0)
    return gradient(lambda logits: (weights * estimator(logits.log_softmax(0), REFERENCE)).sum())


@pytest.mark.parametrize("estimator", [k1, k3])
def test_k1_and_k3_are_unbiased(estimator):
    logprobs = POLICY.log_softmax(0)
    torch.testing.assert_close((logprobs.exp() * estimator(logprobs, REFERENCE)).sum(), exact_kl(POLICY))


def test_k2_is_biased_and_k2_k3_are_never_negative():
    logprobs = POLICY.log_softmax(0)
    assert abs(float((logprobs.exp() * k2(logprobs, REFERENCE)).sum() - exact_kl(POLICY))) > 1e-2
    assert k2(logprobs, REFERENCE).min() >= 0 and k3(logprobs, REFERENCE).min() >= 0
    assert k1(logprobs, REFERENCE).min() < 0


def test_gradients_in_expectation():
    torch.testing.assert_close(expected_gradient(k2), gradient(exact_kl))
    torch.testing.assert_close(expected_gradient(k1), torch.zeros_like(POLICY))
    torch.testing.assert_close(expected_gradient(k3), gradient(forward_kl))


def test_score_function_gradient_of_k1_is_the_kl_gradient():
    # k1 in the reward: E[k1 * grad log policy] with k1 a constant.
    def surrogate(logits):
        logprobs = logits.log_softmax(0)
        return (POLICY.softmax(0) * k1(logprobs, REFERENCE).detach() * logprobs).sum()

    torch.testing.assert_close(gradient(surrogate), gradient(exact_kl))


def test_a_response_sums_its_own_tokens():
    kl = torch.tensor([[1.0, 2.0, 9.0], [0.5, float("nan"), 9.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert nats_per_response(kl, mask).tolist() == [3.0, 0.5]
    doubled = nats_per_response(torch.cat([kl, kl], 1), torch.cat([mask, mask], 1))
    assert doubled.tolist() == [6.0, 1.0]
