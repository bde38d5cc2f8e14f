"""GAE against its definition, and what may not change it."""

import pytest
import torch

from aligner.rl.advantages import gae, masked_mean, masked_whiten


def gae_by_definition(rewards, values, *, gamma, lam):
    """Sum over k of (gamma * lam)^k * delta_{t+k}: slow, obvious, independent."""
    deltas = [r + gamma * after - v for r, v, after in zip(rewards, values, [*values[1:], 0.0], strict=True)]
    return [sum((gamma * lam) ** k * d for k, d in enumerate(deltas[t:])) for t in range(len(deltas))]


def row(values, dtype=torch.float64):
    return torch.tensor([values], dtype=dtype)


REAL = torch.ones(1, 5, dtype=torch.bool)
REWARDS, VALUES = [0.0, -0.1, 0.3, -0.2, 1.0], [0.3, 0.2, 0.6, -0.4, 0.5]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.7, 0.0)])
def test_gae_is_its_definition(gamma, lam):
    got = gae(row(REWARDS), row(VALUES), REAL, gamma=gamma, lam=lam)
    torch.testing.assert_close(
        got, row(gae_by_definition(REWARDS, VALUES, gamma=gamma, lam=lam)), rtol=1e-12, atol=1e-12
    )


def test_lambda_one_is_return_to_go_minus_value():
    to_go = row(REWARDS).flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(gae(row(REWARDS), row(VALUES), REAL, gamma=1.0, lam=1.0), to_go - row(VALUES))


def test_lambda_zero_is_the_td_error():
    after = row([*VALUES[1:], 0.0])
    got = gae(row(REWARDS), row(VALUES), REAL, gamma=0.9, lam=0.0)
    torch.testing.assert_close(got, row(REWARDS) + 0.9 * after - row(VALUES))


def test_three_tokens_by_hand():
    # last: 1 - .5 = .5; middle: 0 + 1 * .5 - 1 + .5 * .5 = -.25; first: 2 + 1 - 0 + .5 * -.25 = 2.875
    got = gae(row([2.0, 0.0, 1.0]), row([0.0, 1.0, 0.5]), REAL[:, :3], gamma=1.0, lam=0.5)
    assert got.tolist() == [[2.875, -0.25, 0.5]]


def test_constant_value_without_reward_shows_only_at_the_end():
    got = gae(torch.zeros(1, 5), torch.full((1, 5), 0.5), REAL, gamma=1.0, lam=0.0)
    assert got.tolist() == [[0.0, 0.0, 0.0, 0.0, -0.5]]


@pytest.mark.parametrize("poison", [7.0, float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_and_gets_nothing(poison, side):
    pad = torch.full((1, 3), poison, dtype=torch.float64)

    def padded(x, fill):
        return torch.cat([fill, x] if side == "left" else [x, fill], dim=1)

    mask = padded(REAL, torch.zeros(1, 3, dtype=torch.bool))
    got = gae(padded(row(REWARDS), pad), padded(row(VALUES), pad), mask, gamma=0.9, lam=0.8)
    want = gae(row(REWARDS), row(VALUES), REAL, gamma=0.9, lam=0.8)
    assert torch.equal(got, padded(want, torch.zeros(1, 3, dtype=torch.float64)))


def test_a_gap_is_stepped_over():
    mask = torch.tensor([[True, True, False, False, True, True, True]])
    rewards = row([*REWARDS[:2], 9.0, 9.0, *REWARDS[2:]])
    values = row([*VALUES[:2], 9.0, 9.0, *VALUES[2:]])
    got = gae(rewards, values, mask, gamma=0.9, lam=0.8)
    want = gae_by_definition(REWARDS, VALUES, gamma=0.9, lam=0.8)
    torch.testing.assert_close(got, row([*want[:2], 0.0, 0.0, *want[2:]]), rtol=1e-12, atol=1e-12)


def test_an_episode_does_not_hang_on_its_neighbours():
    rewards, values = torch.randn(6, 9), torch.randn(6, 9)
    mask = torch.arange(9) < torch.tensor([9, 1, 4, 0, 7, 2])[:, None]
    whole = gae(rewards, values, mask, gamma=0.9, lam=0.8)
    alone = [
        gae(rewards[i : i + 1], values[i : i + 1], mask[i : i + 1], gamma=0.9, lam=0.8) for i in range(6)
    ]
    assert torch.equal(whole, torch.cat(alone))


def test_whitened_tokens_have_mean_0_and_variance_1_whatever_the_padding():
    x, mask = torch.randn(4, 6, dtype=torch.float64) * 3 + 2, torch.rand(4, 6) < 0.6
    got = masked_whiten(x, mask)
    assert abs(float(got[mask].mean())) < 1e-12
    assert abs(float((got[mask] ** 2).mean()) - 1) < 1e-7
    assert torch.equal(got[~mask], torch.zeros_like(got[~mask]))
    assert torch.equal(got, masked_whiten(torch.where(mask, x, float("nan")), mask))
    wider = torch.nn.functional.pad(x, (0, 3), value=5.0), torch.nn.functional.pad(mask, (0, 3))
    torch.testing.assert_close(masked_whiten(*wider)[:, :6], got)


def test_whitening_by_hand_and_of_equal_advantages():
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(
        masked_whiten(torch.tensor([[1.0, 3.0, 99.0]]), mask), torch.tensor([[-1.0, 1.0, 0.0]])
    )
    assert masked_whiten(torch.full((1, 3), 0.1), mask).abs().max() < 1e-3


def test_mean_takes_the_denominator_it_is_given():
    mask = torch.tensor([[True, True, False]])
    assert float(masked_mean(torch.tensor([[1.0, 2.0, float("nan")]]), mask, num_tokens=6)) == 0.5
