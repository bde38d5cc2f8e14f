"""The three estimators on a vocabulary small enough to take expectations exactly."""

import pytest
import torch

from aligner.rl.kl import adapted_coefficient, k1, k2, k3, nats_per_response

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


@pytest.mark.parametrize(
    ("kl", "want"),
    [
        (12.0, 1 + 0.2 * 0.0512),  # twice the target: the error is cut at a fifth
        (6.6, 1 + 0.1 * 0.0512),
        (6.0, 1.0),
        (5.4, 1 - 0.1 * 0.0512),
        (0.0, 1 - 0.2 * 0.0512),
        (-3.0, 1 - 0.2 * 0.0512),  # an estimate may be negative
    ],
)
def test_the_controller_by_hand(kl, want):
    got = adapted_coefficient(0.15, kl, target=6.0, horizon=10_000, episodes=512)
    assert got == pytest.approx(0.15 * want, rel=1e-12)


def test_the_controller_reads_whole_responses():
    # Twice the length at the same KL per token is twice the KL, and no longer on target.
    kl, mask = torch.full((4, 3), 2.0), torch.ones(4, 3, dtype=torch.bool)
    short = float(nats_per_response(kl, mask).mean())
    long = float(nats_per_response(torch.cat([kl, kl], 1), torch.cat([mask, mask], 1)).mean())
    step = {"target": 6.0, "horizon": 1000, "episodes": 100}
    assert adapted_coefficient(1.0, short, **step) == 1.0
    assert adapted_coefficient(1.0, long, **step) == pytest.approx(1.02)
