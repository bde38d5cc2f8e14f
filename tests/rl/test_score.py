"""Where the score stands, what a missing end of text costs, and what the KL takes off."""

import pytest
import torch

from aligner.recipe.ppo import MissingEosSpec
from aligner.rl.rollout import Rollout
from aligner.rl.score import apply_missing_eos, place_at_end, score

EOS, PAD = 2, 2  # the same id on purpose: places must come from the mask


def rollout():
    """Rows: ends with EOS; cut without EOS; one token that is EOS; no token at all."""
    ids = torch.tensor([[5, 6, EOS, PAD], [5, EOS, 6, 7], [EOS, PAD, PAD, PAD], [PAD] * 4])
    mask = torch.arange(4) < torch.tensor([3, 4, 1, 0])[:, None]
    logprobs = torch.where(mask, -0.5, float("nan"))
    return Rollout([[1]] * 4, ids, mask, logprobs, torch.tensor([True, False, True, False]))


def test_score_stands_on_the_last_real_token():
    got = place_at_end(torch.tensor([10.0, 20.0, 30.0, 40.0]), rollout().mask_BR)
    assert got.tolist() == [[0, 0, 10, 0], [0, 0, 0, 20], [30, 0, 0, 0], [0, 0, 0, 0]]


def test_score_after_a_gap_and_with_left_padding():
    mask = torch.tensor([[False, True, False, True, False]])
    assert place_at_end(torch.tensor([3.0]), mask).tolist() == [[0, 0, 0, 3.0, 0]]


def test_a_response_of_end_tokens_alone_and_one_of_a_single_token():
    # A mask of one token: what follows has the same id, and is padding all the same.
    mask = torch.arange(3) < torch.tensor([1, 3])[:, None]
    got = score(
        Rollout([[1]] * 2, torch.full((2, 3), EOS), mask, torch.zeros(2, 3), torch.tensor([True, True])),
        torch.tensor([4.0, 0.0]),
        torch.zeros(2, 3),
        kl_coef=0.0,
        missing_eos=MissingEosSpec(),
    )
    assert got.rewards_BR.tolist() == [[4, 0, 0], [0, 0, 0]]
    assert got.scores_B.tolist() == [4.0, 0.0]  # a score of 0 is a score


@pytest.mark.parametrize(
    ("mode", "value", "want"),
    [("replace", -1.5, [2.0, -1.5]), ("subtract", -0.5, [2.0, 0.5]), ("subtract", 0.5, [2.0, 0.5])],
)
def test_missing_eos(mode, value, want):
    got = apply_missing_eos(
        torch.tensor([2.0, 1.0]), torch.tensor([True, False]), MissingEosSpec(mode=mode, value=value)
    )
    assert got.tolist() == want


def test_rewards_sum_to_score_less_beta_kl():
    ref = torch.where(rollout().mask_BR, -1.0, float("nan"))
    scores = torch.tensor([10.0, 20.0, 30.0, 40.0])
    got = score(rollout(), scores, ref, kl_coef=0.1, missing_eos=MissingEosSpec(mode="replace", value=-1.0))
    assert got.scores_B.tolist() == [10.0, -1.0, 30.0, -1.0]
    assert got.kl_B.tolist() == [1.5, 2.0, 0.5, 0.0]
    torch.testing.assert_close(got.rewards_BR.sum(1), torch.tensor([9.85, -1.2, 29.95, 0.0]))
    torch.testing.assert_close(got.rewards_BR[0], torch.tensor([-0.05, -0.05, 9.95, 0.0]))


def test_padding_never_reaches_the_rewards():
    ref = torch.full((4, 4), float("nan"))
    ref[rollout().mask_BR] = -0.5
    got = score(
        rollout(), torch.zeros(4), ref, kl_coef=1.0, missing_eos=MissingEosSpec(mode="subtract", value=0.0)
    )
    assert torch.equal(got.rewards_BR, torch.zeros(4, 4)) and torch.equal(got.kl_B, torch.zeros(4))


def test_mask_leaves_unfinished_responses_out_of_what_is_learnt():
    got = score(
        rollout(),
        torch.tensor([10.0, 20.0, 30.0, 40.0]),
        torch.full((4, 4), -1.0),
        kl_coef=0.1,
        missing_eos=MissingEosSpec(mode="mask"),
    )
    assert got.rollout.mask_BR.sum(1).tolist() == [3, 0, 1, 0]
    assert got.rewards_BR[1].tolist() == [0.0] * 4 and float(got.rewards_BR[0].sum()) == pytest.approx(9.85)
    assert got.scores_B.tolist() == [10.0, 20.0, 30.0, 40.0]  # told of as it is
    assert got.kl_B.tolist() == [1.5, 2.0, 0.5, 0.0]  # the KL is of all that was said


def test_mask_has_no_value_of_its_own():
    with pytest.raises(ValueError, match="earns nothing"):
        MissingEosSpec(mode="mask", value=-2.0)


@pytest.mark.parametrize(
    ("mode", "unfinished", "counted"),
    [("replace", -1.0, 0.0), ("subtract", 20 - 1 + 4.0, 4.0), ("mask", 20.0, 0.0)],
)
def test_rewards_of_tokens_stand_on_their_tokens(mode, unfinished, counted):
    tokens = torch.where(rollout().mask_BR, 1.0, float("nan"))
    got = score(
        rollout(),
        torch.tensor([10.0, 20.0, 30.0, 40.0]),
        torch.zeros(4, 4),
        kl_coef=0.0,
        missing_eos=MissingEosSpec(mode=mode),
        tokens_BR=tokens,
    )
    assert got.rewards_BR[0].tolist() == [1.0, 1.0, 11.0, 0.0]
    assert got.rewards_BR[1, :3].sum().item() == counted * 3 / 4
    assert got.scores_B[:2].tolist() == [13.0, unfinished]
