"""The clipped losses by hand, their zero-gradient regions, and their denominators."""

import math

import pytest
import torch

from aligner.rl.losses import explained_variance, policy_loss, value_loss

ONE = torch.ones(1, 1, dtype=torch.bool)


def cell(x):
    return torch.tensor([[x]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "cut"),
    [
        (1.0, 1.5, -1.2, True),  # better and already likelier: no more of it
        (1.0, 0.5, -0.5, False),  # better but less likely: full gradient
        (-1.0, 1.5, 1.5, False),  # worse and likelier: full gradient
        (-1.0, 0.5, 0.8, True),  # worse and already less likely: no more of it
        (2.0, 1.1, -2.2, False),
        (-2.0, 0.9, 1.8, False),
    ],
)
def test_policy_clip_sign_cases(advantage, ratio, loss, cut):
    new = cell(-1.0 + math.log(ratio)).requires_grad_()
    got = policy_loss(new, cell(-1.0), cell(advantage), ONE, clip=0.2, num_tokens=1)
    got.loss.backward()
    assert got.loss.item() == pytest.approx(loss, abs=1e-12)
    assert float(got.clip_share) == float(cut)
    assert float(new.grad) == pytest.approx(0.0 if cut else -advantage * ratio, abs=1e-12)
    assert float(got.kl_old_nats) == pytest.approx(ratio - 1 - math.log(ratio), abs=1e-12)
    assert float(got.ratio_error) == pytest.approx(abs(ratio - 1), abs=1e-12)


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "gradient"),
    [
        (
            1.0,
            0.0,
            1.0,
            0.32,
            0.0,
        ),  # ran past the clip towards the target: the clipped .2 is the worse, no gradient
        (
            1.0,
            0.0,
            -1.0,
            2.0,
            2.0,
        ),  # ran past the clip away from it: the free one is the worse, full gradient
        (-1.0, 0.0, 1.0, 2.0, -2.0),  # the same on the other side
        (-1.0, 0.0, -1.0, 0.32, 0.0),
        (0.1, 0.0, 1.0, 0.405, -0.9),  # within the clip: plain squared error
    ],
)
def test_value_clip_cases(value, old, target, loss, gradient):
    v = cell(value).requires_grad_()
    got = value_loss(v, cell(old), cell(target), ONE, clip=0.2, num_tokens=1)
    got.loss.backward()
    assert got.loss.item() == pytest.approx(loss, abs=1e-12)
    assert float(v.grad) == pytest.approx(gradient, abs=1e-12)
    assert float(got.clip_share) == float(gradient == 0.0)


def batch(seed=0, rows=8, width=5):
    random = torch.Generator().manual_seed(seed)
    new, old, advantages = (torch.randn(rows, width, dtype=torch.float64, generator=random) for _ in range(3))
    mask = torch.arange(width) < torch.tensor([5, 1, 3, 4, 0, 5, 2, 1])[:rows, None]
    return new * 0.1, old * 0.1, advantages, mask


def test_at_ratio_one_the_gradient_is_reinforce():
    new, _, advantages, mask = batch()
    num_tokens = int(mask.sum())
    a, b = new.clone().requires_grad_(), new.clone().requires_grad_()
    policy_loss(a, new, advantages, mask, clip=0.2, num_tokens=num_tokens).loss.backward()
    (-(advantages * b)[mask].mean()).backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_micro_batches_add_up_to_the_step(parts):
    new, old, advantages, mask = batch()
    num_tokens = int(mask.sum())

    def losses(rows):
        x = new[rows].clone().requires_grad_()
        policy = policy_loss(x, old[rows], advantages[rows], mask[rows], clip=0.05, num_tokens=num_tokens)
        value = value_loss(x, old[rows], advantages[rows], mask[rows], clip=0.05, num_tokens=num_tokens)
        (policy.loss + value.loss).backward()
        return torch.stack([policy.loss, value.loss, policy.clip_share, policy.kl_old_nats]).detach(), x.grad

    whole, whole_gradient = losses(torch.arange(8))
    each = [losses(rows) for rows in torch.arange(8).chunk(parts)]
    torch.testing.assert_close(sum(figures for figures, _ in each), whole)
    torch.testing.assert_close(torch.cat([gradient for _, gradient in each]), whole_gradient)
    assert 0 < float(whole[2]) < 1


def test_padding_has_no_say():
    new, old, advantages, mask = batch()
    dirty = [torch.where(mask, x, float("nan")) for x in (new, old, advantages)]
    for function, more in ((policy_loss, {"dual_clip": 3.0}), (policy_loss, {}), (value_loss, {})):
        clean = function(new, old, advantages, mask, clip=0.05, num_tokens=21, **more)
        for a, b in zip(function(*dirty, mask, clip=0.05, num_tokens=21, **more), clean, strict=True):
            assert torch.equal(a, b)


def test_explained_variance():
    returns, mask = torch.tensor([[1.0, 2.0, 3.0, 99.0]]), torch.tensor([[True, True, True, False]])
    assert float(explained_variance(returns, returns, mask)) == 1.0
    assert float(explained_variance(torch.full((1, 4), 5.0), returns, mask)) == pytest.approx(0.0, abs=1e-6)
    # errors 1-2, 2-2, 3-4 = -1, 0, -1: variance 2/9 against 2/3
    values = torch.tensor([[2.0, 2.0, 4.0, 0.0]])
    assert float(explained_variance(values, returns, mask)) == pytest.approx(1 - 1 / 3, abs=1e-6)
    assert float(explained_variance(values, torch.ones(1, 4), mask)) == 0.0


@pytest.mark.parametrize(
    ("advantage", "ratio", "clip", "loss", "cut"),
    [
        (1.0, 1.25, {"clip_high": 0.28}, -1.25, False),  # within the higher upper clip
        (1.0, 1.5, {"clip_high": 0.28}, -1.28, True),
        (-1.0, 0.75, {"clip_high": 0.28}, 0.8, True),  # the lower clip is the lower one still
        (-1.0, 9.0, {"dual_clip": 3.0}, 3.0, True),  # worse, and much likelier than it was: no more than 3
        (-1.0, 2.0, {"dual_clip": 3.0}, 2.0, False),
        (1.0, 9.0, {"dual_clip": 3.0}, -1.2, True),  # better ones have the plain clip
    ],
)
def test_asymmetric_and_dual_clip_by_hand(advantage, ratio, clip, loss, cut):
    new = cell(-1.0 + math.log(ratio)).requires_grad_()
    got = policy_loss(new, cell(-1.0), cell(advantage), ONE, clip=0.2, num_tokens=1, **clip)
    got.loss.backward()
    assert got.loss.item() == pytest.approx(loss, abs=1e-12)
    assert float(got.clip_share) == float(cut)
    assert float(new.grad) == pytest.approx(0.0 if cut else -advantage * ratio, abs=1e-12)
