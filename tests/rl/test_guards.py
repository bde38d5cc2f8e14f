"""What ends a run before a weight is spoilt, and what only warns: each by its rule."""

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from aligner.errors import TrainingError
from aligner.models.heads import ValueHead
from aligner.recipe.ppo import GuardSpec, LimitSpec, MissingEosSpec
from aligner.rl.actors import Drawing, LanguageActor
from aligner.rl.finite import Stopped
from aligner.rl.guards import Guards
from aligner.rl.score import Scored, score
from aligner.rl.seeds import generator
from aligner.rl.update import prepare, update
from tests.rl.tabular import Environment, Tabular
from tests.rl.test_update import EPISODES, adam, scene, spec
from tests.tiny import tiny_model

NONE = {"length": None, "zero_gradient": "warn"}


def guards(**changes):
    return Guards(GuardSpec.model_validate(NONE | changes))


def batch_of(values=0.0, **changes):
    policy, scored = scene()
    with torch.no_grad():
        policy.values.fill_(values)
    return prepare(policy, replace(scored, **changes), spec())


CALM = {"kl_nats": 0.0, "length_ratio": 1.0}


@pytest.mark.parametrize(
    ("guard", "seen", "value", "words"),
    [
        ("kl", {"kl_nats": 3.01}, 0.0, "3.01 nats per response, more than 3"),
        ("length", {"length_ratio": 3.5}, 0.0, "3.5 times as long as at the first step, more than 3"),
        ("value", {}, -3.25, "largest value of a token is 3.25, more than 3"),
    ],
)
def test_a_limit_warns_once_or_stops(capsys, guard, seen, value, words):
    batch = batch_of(value)
    warning = guards(**{guard: {"limit": 3, "act": "warn"}})
    for _ in range(2):
        warning.check(batch, **(CALM | seen))
        assert warning.warnings == 1
    told = capsys.readouterr().err
    assert told.count(words) == 1 and told.count(f"ppo.guards.{guard}") == 1
    with pytest.raises(Stopped, match=words):
        guards(**{guard: {"limit": 3}}).check(batch, **(CALM | seen))
    for limit in (1e6, None):  # within it, and without one
        quiet = guards(**({guard: {"limit": limit}} if limit else {}))
        quiet.check(batch, **(CALM | seen))
        assert quiet.warnings == 0
    assert capsys.readouterr().err == ""


def test_every_sign_that_stops_is_told_at_once():
    strict = guards(kl={"limit": 1}, value={"limit": 1}, length={"limit": 2, "act": "warn"})
    with pytest.raises(Stopped) as caught:
        strict.check(batch_of(5.0), kl_nats=2.0, length_ratio=9.0)
    assert [p.where for p in caught.value.problems] == ["ppo.guards.kl", "ppo.guards.value"]
    assert caught.value.exit_code == 4 and all(p.remedy for p in caught.value.problems)


def test_twice_the_length_warns_without_being_asked(capsys):
    plain = Guards(GuardSpec())
    plain.check(batch_of(), kl_nats=1e9, length_ratio=2.0)
    assert plain.warnings == 0
    plain.check(batch_of(), kl_nats=1e9, length_ratio=2.1)
    assert plain.warnings == 1 and "ppo.guards.length" in capsys.readouterr().err
    assert GuardSpec().length == LimitSpec(limit=2.0, act="warn")


def test_a_step_without_a_gradient_is_told():
    _, scored = scene()
    nothing = batch_of(rewards_BR=torch.zeros_like(scored.rewards_BR))
    warning = guards()
    warning.check(nothing, **CALM)
    assert warning.warnings == 1
    with pytest.raises(Stopped, match="every advantage is 0"):
        guards(zero_gradient="stop").check(nothing, **CALM)
    guards(zero_gradient="stop").check(batch_of(), **CALM)


def test_a_reward_of_zero_is_a_reward_and_one_episode_is_a_batch():
    policy, scored = scene()
    with torch.no_grad():
        policy.values.fill_(0.5)
    longest = scored.rollout.select(scored.rollout.mask_BR.sum(1).argmax()[None])
    lone = Scored(longest, torch.zeros_like(longest.logprobs_BR), torch.zeros(1), torch.zeros(1))
    before = policy.logits.detach().clone()
    stats = update(policy, adam(policy), lone, spec(minibatches=1), seed=0, step=0)
    assert stats.grad_norm > 0 and math.isfinite(stats.policy_loss)
    assert not torch.equal(policy.logits, before)


def test_equal_rewards_of_equal_responses_teach_nothing_and_break_nothing():
    # A group of one response, n times: std 0.
    policy, scored = scene()
    ends = (scored.rollout.mask_BR.sum(1) == 1).nonzero().squeeze(1)[:1].repeat(4)
    part = scored.rollout.select(ends)
    lone = Scored(part, torch.ones_like(part.logprobs_BR), torch.ones(4), torch.zeros(4))
    before = policy.logits.detach().clone()
    stats = update(policy, adam(policy), lone, spec(epochs=1, minibatches=1), seed=0, step=0)
    assert all(math.isfinite(figure) for figure in stats)
    torch.testing.assert_close(policy.logits, before)
    assert not torch.equal(policy.values, torch.zeros_like(policy.values))  # the critic learns all the same


def test_where_no_response_counts_nothing_moves_and_it_is_told():
    torch.manual_seed(0)
    model = tiny_model()
    policy = LanguageActor(
        model,
        ValueHead(model.config.hidden_size),
        Drawing(max_new_tokens=2, temperature=1.0, eos_id=2, pad_id=0),
    )
    rollout = policy.sample([[1, 20], [1, 30, 31]], generator(0, "rollout"))
    rollout = replace(rollout, finished_B=torch.tensor([False, False]))
    rule = MissingEosSpec(mode="mask")
    scored = score(rollout, torch.ones(2), rollout.logprobs_BR, kl_coef=0.1, missing_eos=rule)
    before = {name: weight.detach().clone() for name, weight in policy.named_parameters().items()}
    watch = guards()
    plan = spec(prompts_per_step=2, minibatches=1)
    check = partial(watch.check, **CALM)
    stats = update(policy, adam(policy), scored, plan, seed=0, step=0, check=check)
    assert all(torch.equal(before[name], weight) for name, weight in policy.named_parameters().items())
    assert watch.warnings == 1 and all(math.isfinite(figure) for figure in stats)
    with pytest.raises(Stopped, match="none came to its end"):
        guards(zero_gradient="stop").check(prepare(policy, scored, plan), **CALM)


def poisoned(x_BR, mask_BR):
    place = tuple(mask_BR.nonzero()[5].tolist())
    x_BR = x_BR.clone()
    x_BR[place] = math.inf
    return x_BR


@pytest.mark.parametrize("what", ["rewards of tokens", "log-probabilities", "values"])
def test_what_is_no_number_stops_before_a_weight_moves(what):
    policy, scored = scene()
    mask_BR = scored.rollout.mask_BR
    if what == "values":
        with torch.no_grad():
            policy.values[0] = math.nan
    elif what == "log-probabilities":
        rollout = replace(scored.rollout, logprobs_BR=poisoned(scored.rollout.logprobs_BR, mask_BR))
        scored = replace(scored, rollout=rollout)
    else:
        scored = replace(scored, rewards_BR=poisoned(scored.rewards_BR, mask_BR))
    before, optimizer = policy.logits.detach().clone(), adam(policy)
    with pytest.raises(Stopped, match=f"of [0-9]+ {what} .*no numbers, the first is (inf|nan)"):
        update(policy, optimizer, scored, spec(), seed=0, step=0)
    assert torch.equal(policy.logits, before) and not optimizer.state


def test_what_is_no_number_in_the_padding_is_nobodys_business():
    policy, scored = scene()
    mask_BR = scored.rollout.mask_BR
    dirty = replace(
        scored,
        rollout=replace(
            scored.rollout, logprobs_BR=torch.where(mask_BR, scored.rollout.logprobs_BR, math.nan)
        ),
        rewards_BR=torch.where(mask_BR, scored.rewards_BR, math.nan),
    )
    other = copy.deepcopy(policy)
    update(policy, adam(policy), scored, spec(), seed=0, step=0)
    update(other, adam(other), dirty, spec(), seed=0, step=0)
    assert torch.equal(policy.logits, other.logits) and torch.equal(policy.values, other.values)


class Breaking(Tabular):
    """Its gradient is no number from the nth backward pass on."""

    def __init__(self, reference, *, after):
        super().__init__(reference)
        self.left = after
        self.logits.register_hook(self.hooked)

    def hooked(self, gradient):
        self.left -= 1
        return gradient if self.left >= 0 else gradient * math.nan


@pytest.mark.parametrize(("after", "stopped"), [(0, True), (2, False)])
def test_a_gradient_that_is_no_number_is_never_stepped_on(after, stopped):
    policy = Breaking(Environment.random(0).reference, after=after)
    _, scored = scene()
    optimizer = adam(policy)
    with pytest.raises(TrainingError, match="gradient norm is nan") as caught:
        update(policy, optimizer, scored, spec(minibatches=1), seed=0, step=0)
    assert isinstance(caught.value, Stopped) is stopped
    assert bool(policy.logits.isfinite().all())
    assert {int(state["step"]) for state in optimizer.state.values()} == ({after} if after else set())


def test_a_weight_that_is_no_number_is_told_before_it_is_used():
    policy, scored = scene()
    optimizer = torch.optim.SGD(policy.parameters(), lr=math.inf)
    with pytest.raises(TrainingError, match="a weight is no number") as caught:
        update(policy, optimizer, scored, spec(epochs=1, minibatches=1), seed=0, step=0)
    assert not isinstance(caught.value, Stopped)


def test_guards_see_the_batch_before_the_first_optimiser_step():
    policy, scored = scene()
    before = policy.logits.detach().clone()
    strict = guards(kl={"limit": 0.5})
    with pytest.raises(Stopped):
        update(
            policy,
            adam(policy),
            scored,
            spec(),
            seed=0,
            step=0,
            check=partial(strict.check, kl_nats=1.0, length_ratio=1.0),
        )
    assert torch.equal(policy.logits, before) and len(scored.rollout.prompts) == EPISODES
