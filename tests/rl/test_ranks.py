"""Two processes are one: the same gradients, figures and rollouts, whoever did which part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from aligner.rl.ranks import Ranks, ranks_of_launch
from aligner.rl.rollout import Rollout
from aligner.rl.seeds import generator
from tests.pair import Pair
from tests.rl.ranks_work import (
    collected,
    fault_on,
    one_group_update,
    one_update,
    parted,
    said_by_one,
)

TOLERANCE = 1e-6
CASES: dict[str, dict[str, Any]] = {
    "full": {"lora": False, "episodes": 14, "values": True, "step": 0, "spec": {}},
    "lora": {"lora": True, "episodes": 14, "values": True, "step": 0, "spec": {}},
    "one row a pass": {"lora": True, "episodes": 15, "values": False, "step": 0, "spec": {"rows_per_device": 1}},
    "fewer episodes than ranks": {"lora": False, "episodes": 2, "values": False, "step": 0, "spec": {}},
    "the critic alone": {"lora": False, "episodes": 9, "values": True, "step": 0, "spec": {"value_warmup_steps": 1}},
    "early stop": {"lora": False, "episodes": 9, "values": True, "step": 0, "spec": {"target_kl": 1e-9}},
}  # fmt: skip


def assert_same_gradients(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """To 1e-6, and of gradients beyond 1 to 1e-6 of the largest."""
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        largest = max(float(gradient.abs().max()) for gradient in other.values())
        assert largest > 1e-2
        furthest = max(float((one[name] - other[name]).abs().max()) for name in one)
        assert furthest <= TOLERANCE * max(1.0, largest), (furthest, largest)


def assert_same_figures(found: dict[str, float], wanted: dict[str, float]) -> None:
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("case", CASES)
def test_an_update_on_two_ranks_is_the_update_on_one(pair: Pair, case: str) -> None:
    alone, (first, second) = one_update(CASES[case]), pair(one_update, CASES[case])
    assert_same_gradients(first["gradients"], alone["gradients"])
    assert_same_figures(first["stats"], alone["stats"])
    for one, other in zip(first["gradients"], second["gradients"], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert first["stats"] == second["stats"]
    for mine, yours, by_one in zip(first["fixed"], second["fixed"], alone["fixed"], strict=True):
        assert torch.equal(mine, yours)
        torch.testing.assert_close(mine, by_one, atol=TOLERANCE, rtol=0)
    assert len(first["calls"]) == len(second["calls"]) > 0


def test_whitening_is_over_the_tokens_of_all_ranks(pair: Pair) -> None:
    """By definition, over every real token; the tokens that rank 0 reads alone have another mean."""
    advantages_BR, _, _, mask_BR = pair(one_update, CASES["full"])[0]["fixed"]
    assert len({int(n) for n in mask_BR.sum(dim=1)}) > 3
    real = advantages_BR[mask_BR]
    assert abs(float(real.mean())) < 1e-6 and float((real**2).mean()) == pytest.approx(1, abs=1e-5)
    assert abs(float(advantages_BR[::2][mask_BR[::2]].mean())) > 1e-3


@pytest.mark.parametrize("loss", ["dapo", "grpo"])
def test_a_group_update_on_two_ranks_is_the_update_on_one(pair: Pair, loss: str) -> None:
    alone, (first, second) = one_group_update(loss), pair(one_group_update, loss)
    assert_same_gradients(first["gradients"], alone["gradients"])
    assert_same_figures(first["stats"], alone["stats"])
    assert first["stats"] == second["stats"] and len(first["calls"]) == len(second["calls"]) > 0


@pytest.mark.parametrize(("count", "group", "sampled"), [(9, 1, [5, 4]), (12, 3, [5, 5]), (3, 3, [3, 0])])
def test_a_rollout_is_the_one_of_one_rank(pair: Pair, count: int, group: int, sampled: list[int]) -> None:
    """`sampled`: prompts that each rank reads; equal ones once."""
    alone, found = collected(count, group), pair(collected, count, group)
    assert [each["sampled"] for each in found] == sampled
    for each in found:
        assert all(each[name] == alone[name] for name in ("responses", "texts", "prompts"))
        torch.testing.assert_close(each["logprobs"], alone["logprobs"], atol=1e-5, rtol=0)
        torch.testing.assert_close(each["total"], alone["total"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("how", [Ranks.together, Ranks.agree])
def test_what_one_rank_cannot_do_ends_all(pair: Pair, how: Any) -> None:
    told = pair(fault_on, 1, how)
    assert told == ["DataError: here: rank 1 found no rows"] * 2


def test_ranks_agree(pair: Pair) -> None:
    assert pair(said_by_one) == [(True, False, "of 0")] * 2


def test_weights_that_part_are_seen(pair: Pair) -> None:
    assert pair(parted, False) == ["the same"] * 2
    assert all("the weights of process 1 are not those of process 0" in told for told in pair(parted, True))


def test_shares_by_hand() -> None:
    assert [list(Ranks(r, 3).share(range(8))) for r in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert [Ranks(r, 3).before(8) for r in range(3)] == [0, 3, 6]
    assert [list(Ranks(r, 3).share(range(2))) for r in range(3)] == [[0], [1], []]


@pytest.mark.parametrize("per_device", [None, 1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("episodes", [1, 4, 13])
def test_passes_are_as_many_on_every_rank_and_read_each_episode_once(
    episodes: int, count: int, per_device: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("aligner.rl.rollout", fromlist=["x"]).PASS_TOKENS, "cpu", 40)
    lengths = [(3 * i) % 7 for i in range(episodes)]  # some have no token
    mask_BR = torch.arange(8) < torch.tensor(lengths)[:, None]
    zeros_BR = torch.zeros(mask_BR.shape)
    rollout = Rollout(
        [[1] * (i % 5 + 1) for i in range(episodes)], zeros_BR.long(), mask_BR, zeros_BR, mask_BR[:, 0]
    )
    passes = [list(Ranks(rank, count).passes(rollout, per_device)) for rank in range(count)]
    assert len({len(each) for each in passes}) == 1
    for each in (one for of_rank in passes for one in of_rank):
        assert bool(mask_BR[each.episodes].any()) and each.weight in (0.0, 1.0)
        if per_device:
            assert len(each.episodes) <= per_device
    read = [i for of_rank in passes for one in of_rank if one.weight for i in one.episodes.tolist()]
    assert len(read) == len(set(read)) and {i for i in range(episodes) if lengths[i]} <= set(read)


def test_numbers_drawn_in_two_parts_are_those_drawn_at_once() -> None:
    """What `collect` relies on: uniform numbers of the CPU's generator come one after another."""
    whole = torch.rand(9, 7, generator=generator(0, "rollout"))
    rng = generator(0, "rollout")
    parts = [torch.rand(rows, 7, generator=rng) for rows in (0, 4, 1, 4)]
    assert torch.equal(whole, torch.cat(parts))


def test_one_process_is_alone_and_asks_nobody() -> None:
    ranks = ranks_of_launch()
    assert ranks == Ranks(0, 1)
    weight = nn.Parameter(torch.ones(2))
    ranks.add_gradients([weight])
    assert weight.grad is None and ranks.together(lambda: 3) == [3] and ranks.any(True)
