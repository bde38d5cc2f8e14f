"""The update on the small tabular language: what must not move, what must be refused, what must not matter."""

import copy
from dataclasses import replace

import pytest
import torch

from aligner.errors import TrainingError
from aligner.recipe.ppo import PpoSpec
from aligner.rl.score import Scored, score
from aligner.rl.seeds import generator
from aligner.rl.steps import set_learning_rates
from aligner.rl.update import (
    evaluate_in_parts,
    prepare,
    update,
)
from tests.rl.tabular import NO_RULE, Environment, Tabular, earned, prefixes

EPISODES = 64


def spec(**changes):
    settings = {
        "steps": 4,
        "prompts_per_step": EPISODES,
        "epochs": 3,
        "minibatches": 2,
        "learning_rate": 0.05,
    }
    return PpoSpec(**(settings | changes))


def scene(seed=0):
    environment = Environment.random(seed)
    policy = Tabular(environment.reference)
    rollout = policy.sample([[]] * EPISODES, generator(seed, "sample"))
    scored = score(
        rollout, earned(environment, rollout), rollout.logprobs_BR - 0.1, kl_coef=0.1, missing_eos=NO_RULE
    )
    return policy, scored


def adam(policy, rate=0.05):
    return torch.optim.Adam(policy.parameters(), lr=rate, eps=1e-5)


def test_without_a_learning_rate_nothing_moves_and_the_ratio_stays_one():
    policy, scored = scene()
    before = copy.deepcopy(policy.state_dict())
    stats = update(policy, adam(policy, rate=0.0), scored, spec(), seed=0, step=0)
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items())
    assert stats.ratio_first_error < 1e-6 and abs(stats.kl_old_nats) < 1e-9 and stats.clip_share == 0.0


def test_likelier_what_earned_more():
    policy, scored = scene()
    update(policy, adam(policy), scored, spec(), seed=0, step=0)
    now = evaluate_in_parts(policy, scored.rollout, rows_per_device=None)
    change_B = (now.logprobs_BR - torch.where(scored.rollout.mask_BR, scored.rollout.logprobs_BR, 0.0)).sum(1)
    assert float(torch.corrcoef(torch.stack([change_B, scored.scores_B]))[0, 1]) > 0.5


def test_a_policy_that_is_not_the_sampler_is_refused():
    policy, scored = scene()
    with torch.no_grad():
        policy.logits[0, 0] += 0.01
    with pytest.raises(TrainingError, match="before the first optimiser step"):
        update(policy, adam(policy), scored, spec(), seed=0, step=0)


def test_other_numerics_take_the_actors_own_log_probabilities():
    policy, scored = scene()
    with torch.no_grad():
        policy.logits[0, 0] += 0.01
    stats = update(policy, adam(policy), scored, spec(), seed=0, step=0, same_numerics=False)
    assert stats.ratio_first_error < 1e-6


def test_a_loss_that_is_no_number_is_refused():
    policy, scored = scene()
    broken = Scored(scored.rollout, scored.rewards_BR * float("nan"), scored.scores_B, scored.kl_B)
    with pytest.raises(TrainingError, match="nan"):
        update(policy, adam(policy), broken, spec(), seed=0, step=0)


def test_target_kl_ends_the_update_before_the_step_that_is_too_far():
    far = []
    for target in (None, 1e-9, 0.02, 1e9):
        policy, scored = scene()
        optimizer = adam(policy)
        stats = update(
            policy, optimizer, scored, spec(epochs=8, minibatches=1, target_kl=target), seed=0, step=0
        )
        now = evaluate_in_parts(policy, scored.rollout, rows_per_device=None)
        mask = scored.rollout.mask_BR
        d = (now.logprobs_BR - scored.rollout.logprobs_BR)[mask]
        far.append(
            (stats.optimiser_steps, float((torch.expm1(d) - d).mean()), policy.logits.detach().clone())
        )
        assert {int(state["step"]) for state in optimizer.state.values()} == {stats.optimiser_steps}
    (whole, _, plain), (least, _, _), (some, reached, _), (all_of_them, _, loose) = far
    assert (whole, least, all_of_them) == (8, 1, 8) and torch.equal(plain, loose)
    assert 1 < some < 8 and reached > 0.02  # the first policy beyond the target is the last
    policy, scored = scene()
    update(policy, adam(policy), scored, spec(epochs=int(some) - 1, minibatches=1), seed=0, step=0)
    d = evaluate_in_parts(policy, scored.rollout, rows_per_device=None).logprobs_BR[mask]
    d = d - scored.rollout.logprobs_BR[mask]
    assert float((torch.expm1(d) - d).mean()) <= 0.02  # and the one before it was not


def test_the_entropy_bonus_adds_its_own_gradient_and_nothing_else():
    # With plain descent of length one over one minibatch, weights move by minus the gradient.
    moved = {}
    for coefficient in (0.0, 0.5):
        policy, scored = scene()
        start = policy.logits.detach().clone()
        optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
        changes = {"epochs": 1, "minibatches": 1, "entropy_coef": coefficient, "max_grad_norm": 1e9}
        update(policy, optimizer, scored, spec(**changes), seed=0, step=0)
        moved[coefficient] = policy.logits.detach() - start
    policy, scored = scene()
    ids, mask = scored.rollout.ids_BR, scored.rollout.mask_BR
    logprobs = policy.logits.log_softmax(-1)[prefixes(ids, mask)[mask]]
    (0.5 * -(logprobs.exp() * logprobs).sum(-1).mean()).backward()
    torch.testing.assert_close(moved[0.5] - moved[0.0], policy.logits.grad, rtol=1e-4, atol=1e-7)


def test_a_masked_response_teaches_nothing():
    policy, scored = scene()
    other = copy.deepcopy(policy)
    keep = torch.arange(EPISODES) % 3 != 0
    mask = scored.rollout.mask_BR & keep[:, None]
    masked = Scored(
        replace(scored.rollout, mask_BR=mask),
        torch.where(mask, scored.rewards_BR, 0.0),
        scored.scores_B,
        scored.kl_B,
    )
    rows = keep.nonzero().squeeze(1)
    part = scored.rollout.select(rows)
    alone = Scored(
        part, scored.rewards_BR[rows, : part.mask_BR.shape[1]], scored.scores_B[rows], scored.kl_B[rows]
    )
    plan = spec(epochs=2, minibatches=1)
    update(policy, adam(policy), masked, plan, seed=0, step=0)
    update(other, adam(other), alone, plan, seed=0, step=0)
    torch.testing.assert_close(policy.logits, other.logits, rtol=0, atol=2e-5)
    torch.testing.assert_close(policy.values, other.values, rtol=0, atol=2e-5)


@pytest.mark.parametrize("rows", [None, 32, 16, 8, 7])
def test_micro_batches_change_nothing(rows):
    whole, scored = scene()
    parts = copy.deepcopy(whole)
    a = update(whole, adam(whole), scored, spec(), seed=0, step=0)
    b = update(parts, adam(parts), scored, spec(rows_per_device=rows), seed=0, step=0)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=0, atol=2e-5)
    torch.testing.assert_close(torch.tensor(a), torch.tensor(b), rtol=1e-4, atol=1e-5)


def test_whitening_spans_the_rollout_batch_and_not_the_minibatch():
    policy, scored = scene()
    batch, mask = prepare(policy, scored, spec()), scored.rollout.mask_BR
    assert abs(float(batch.advantages_BR[mask].mean())) < 1e-6
    half = batch.select(torch.arange(EPISODES // 2))
    assert abs(float(half.advantages_BR[half.rollout.mask_BR].mean())) > 1e-3
    # returns are those of the raw advantages: with values 0 and lambda 1, reward to go
    to_go = scored.rewards_BR.flip(1).cumsum(1).flip(1)
    free = prepare(policy, scored, spec(lam=1.0))
    torch.testing.assert_close(free.returns_BR[mask], to_go[mask])


def test_the_number_of_optimiser_steps():
    policy, scored = scene()
    optimizer = adam(policy)
    update(policy, optimizer, scored, spec(epochs=3, minibatches=4), seed=0, step=0)
    assert {int(state["step"]) for state in optimizer.state.values()} == {12}


def test_gradients_are_clipped():
    policy, scored = scene()
    # plain gradient descent, so the step's length shows the gradient's
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    before = torch.cat([p.detach().clone().flatten() for p in policy.parameters()])
    stats = update(
        policy, optimizer, scored, spec(epochs=1, minibatches=1, max_grad_norm=1e-3), seed=0, step=0
    )
    after = torch.cat([p.detach().flatten() for p in policy.parameters()])
    assert stats.grad_norm > 1e-3
    assert float((after - before).norm()) == pytest.approx(1e-3, rel=1e-2)


def test_learning_rates_fall_linearly_each_from_its_own():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.Adam([{"params": [weights[0]], "lr": 1.0}, {"params": [weights[1]], "lr": 0.1}])
    for step, share in [(0, 1.0), (1, 0.75), (3, 0.25), (2, 0.5)]:
        set_learning_rates(optimizer, step=step, steps=4)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([share, 0.1 * share])


def test_same_place_same_update():
    results = []
    for step in (3, 3, 2):
        policy, scored = scene()
        update(policy, adam(policy), scored, spec(steps=100, minibatches=8), seed=5, step=step)
        results.append(policy.logits.detach().clone())
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_returns_are_advantages_plus_the_old_values():
    policy, scored = scene()
    torch.nn.init.normal_(policy.values)
    mask = scored.rollout.mask_BR
    batch = prepare(policy, scored, spec(lam=1.0))
    to_go = scored.rewards_BR.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(batch.returns_BR[mask], to_go[mask])
    assert torch.equal(
        batch.old_values_BR[mask],
        evaluate_in_parts(policy, scored.rollout, rows_per_device=5).values_BR[mask],
    )


def test_figures_are_means_over_real_tokens():
    policy, scored = scene()
    mask = scored.rollout.mask_BR
    seen = evaluate_in_parts(policy, scored.rollout, rows_per_device=None)
    returns = prepare(policy, scored, spec()).returns_BR[mask]
    stats = update(policy, adam(policy), scored, spec(epochs=1, minibatches=1), seed=0, step=0)
    assert stats.entropy_nats == pytest.approx(float(seen.entropy_BR[mask].mean()), rel=1e-5)
    assert stats.value_loss == pytest.approx(float((returns**2).mean()) / 2, rel=1e-5)
    assert stats.policy_loss == pytest.approx(0.0, abs=1e-6)


class Watched(Tabular):
    """Remembers in which order it was shown the episodes with gradient."""

    def evaluate(self, prompts, ids_BR, mask_BR):
        if torch.is_grad_enabled():
            self.__dict__.setdefault("shown", []).append([prompt[0] for prompt in prompts])
        return super().evaluate(prompts, ids_BR, mask_BR)


def test_every_epoch_has_its_own_order():
    environment = Environment.random(0)
    policy = Watched(environment.reference)
    rollout = policy.sample([[i] for i in range(EPISODES)], generator(0, "sample"))
    scored = score(
        rollout, earned(environment, rollout), rollout.logprobs_BR, kl_coef=0.1, missing_eos=NO_RULE
    )
    update(policy, adam(policy), scored, spec(epochs=3, minibatches=2), seed=0, step=0)
    epochs = [policy.shown[i] + policy.shown[i + 1] for i in (0, 2, 4)]
    assert all(sorted(order) == list(range(EPISODES)) for order in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
