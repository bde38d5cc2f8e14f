"""Episodes and the order of prompts."""

import torch

from aligner.rl.rollout import PASS_TOKENS, Rollout, passes, prompts_for, real_width
from aligner.rl.seeds import derived_seed
from aligner.rl.steps import shuffled_minibatches


def rollout():
    mask = torch.arange(5) < torch.tensor([2, 5, 0, 3])[:, None]
    return Rollout(
        [[1], [2], [3], [4]], torch.arange(20).view(4, 5), mask, torch.zeros(4, 5), torch.tensor([True] * 4)
    )


def test_select_takes_rows_and_trims_to_the_longest():
    got = rollout().select(torch.tensor([3, 0]))
    assert got.prompts == [[4], [1]]
    assert got.ids_BR.tolist() == [[15, 16, 17], [0, 1, 2]]
    assert got.response(0) == [15, 16, 17] and got.response(1) == [0, 1] and got.num_tokens == 5
    assert real_width(rollout().mask_BR[2:3]) == 0


def test_a_pass_holds_what_fits_and_rows_of_like_length(monkeypatch):
    """Rows of 3, 6, 1 and 4 tokens, prompts included; a pass is a rectangle."""
    assert [part.tolist() for part in passes(rollout(), None)] == [[0, 1, 2, 3]]  # 4 x 6 tokens fit
    monkeypatch.setitem(PASS_TOKENS, "cpu", 9)
    assert [part.tolist() for part in passes(rollout(), None)] == [[2, 0], [3], [1]]
    monkeypatch.setitem(PASS_TOKENS, "cpu", 1)
    assert sorted(part.tolist() for part in passes(rollout(), None)) == [
        [0],
        [1],
        [2],
        [3],
    ]  # no row is left out
    assert [part.tolist() for part in passes(rollout(), 3)] == [[0, 1, 2], [3]]


def test_every_epoch_shows_every_prompt_once_in_a_fresh_order():
    steps = [prompts_for(step, num_prompts=10, prompts_per_step=4, seed=3) for step in range(5)]
    flat = [row for step in steps for row in step]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10)) and flat[:10] != flat[10:]
    assert steps[3] == prompts_for(3, num_prompts=10, prompts_per_step=4, seed=3)
    assert steps[0] != prompts_for(0, num_prompts=10, prompts_per_step=4, seed=4)


def test_fewer_prompts_than_a_step_takes():
    assert sorted(prompts_for(1, num_prompts=3, prompts_per_step=6, seed=0)) == [0, 0, 1, 1, 2, 2]


def test_minibatches_are_a_partition_and_change_with_step_and_epoch():
    def parts(step, epoch):
        return [part.tolist() for part in shuffled_minibatches(rollout(), 2, seed=0, step=step, epoch=epoch)]

    for place in [(0, 0), (0, 1), (1, 0)]:
        first, second = parts(*place)
        assert sorted([*first, *second]) == [0, 1, 2, 3] and len(first) == 2
    orders = {str(parts(step, epoch)) for step in range(4) for epoch in range(4)}
    assert len(orders) > 6


def test_places_and_purposes_have_unrelated_seeds():
    seeds = {
        derived_seed(s, purpose, a, b)
        for s in range(3)
        for purpose in ("x", "y")
        for a in range(3)
        for b in range(12)
    }
    assert len(seeds) == 216
