"""The defects of TRL's last PPO trainer (1.12.0) that lie in the update, the score or the roles: none of them is ours.

The numbers are those of ../shared/anchors/trl.md, 2a; the stage's are in tests/stages/test_ppo_trl_defects.py. Numbers 14
to 16 (wrappers of several processes) have no counterpart while PPO runs in one.
"""

import dataclasses

import pytest
import torch
from pydantic import ValidationError

from aligner.models.heads import RewardModel, ValueHead
from aligner.models.load import load_scorer
from aligner.recipe.model import ModelSpec
from aligner.recipe.ppo import MissingEosSpec, PpoSpec
from aligner.rl.actors import Drawing, LanguageActor
from aligner.rl.rollout import Rollout
from aligner.rl.score import place_at_end, score
from aligner.rl.seeds import generator
from aligner.rl.update import Evaluation, evaluate_in_parts, prepare, update
from tests.models.runs import save_reward, write_base
from tests.rl.tabular import NO_RULE, Environment, Tabular, earned
from tests.tiny import tiny_model, tiny_tokenizer

PROMPTS = [[1, 20, 21, 22], [1, 30], [1, 40, 41, 42, 43, 44, 45], [1, 50, 51]]


def spec(**changes):
    return PpoSpec(**({"steps": 4, "prompts_per_step": 64, "epochs": 2, "learning_rate": 0.05} | changes))


def scene(*, keep=lambda mask_BR: mask_BR.any(1)):
    """A tabular policy and 64 scored episodes of its own, those that `keep` wants."""
    environment = Environment.random(0)
    policy = Tabular(environment.reference)
    drawn = policy.sample([[]] * 512, generator(0, "sample"))
    rollout = drawn.select(keep(drawn.mask_BR).nonzero().squeeze(1)[:64])
    scores_B = earned(environment, rollout)
    return policy, score(rollout, scores_B, rollout.logprobs_BR - 0.1, kl_coef=0.1, missing_eos=NO_RULE)


def adam(policy, rate=0.05):
    return torch.optim.Adam(policy.parameters(), lr=rate, eps=1e-5)


def actor(*, eos_id, pad_id, max_new_tokens=6):
    model = tiny_model()
    torch.manual_seed(0)
    drawing = Drawing(max_new_tokens=max_new_tokens, temperature=1.0, eos_id=eos_id, pad_id=pad_id)
    return LanguageActor(model, ValueHead(model.config.hidden_size), drawing)


@pytest.mark.parametrize("minibatches", [1, 2, 4])
def test_trl_defect_01_minibatches_decide_the_optimiser_steps(minibatches):
    policy, scored = scene()
    optimizer = adam(policy)
    update(policy, optimizer, scored, spec(minibatches=minibatches), seed=0, step=0)
    assert {int(state["step"]) for state in optimizer.state.values()} == {2 * minibatches}


@pytest.mark.parametrize("rows_per_device", [None, 4])
def test_trl_defect_02_minibatches_do_not_dilute_the_figures(rows_per_device):
    # Whole responses only, so that the mean of the minibatches' means is the mean.
    told = []
    for minibatches in (1, 2, 4):
        policy, scored = scene(keep=lambda mask_BR: mask_BR.all(1))
        changes = {"minibatches": minibatches, "rows_per_device": rows_per_device}
        told.append(update(policy, adam(policy, rate=0.0), scored, spec(**changes), seed=0, step=0))
    for name in ("entropy_nats", "value_loss", "policy_loss", "explained_variance"):
        assert [getattr(stats, name) for stats in told] == pytest.approx(
            [getattr(told[0], name)] * 3, rel=1e-4, abs=1e-6
        )
    assert told[0].entropy_nats > 0.5 and all(stats.ratio_first_error < 1e-6 for stats in told)


def test_trl_defect_04_the_gradient_is_clipped():
    policy, scored = scene()
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    before = torch.cat([p.detach().clone().flatten() for p in policy.parameters()])
    stats = update(policy, optimizer, scored, spec(epochs=1, max_grad_norm=1e-3), seed=0, step=0)
    after = torch.cat([p.detach().flatten() for p in policy.parameters()])
    assert stats.grad_norm > 1e-2 and float((after - before).norm()) == pytest.approx(1e-3, rel=1e-2)


def test_trl_defect_05_bf16_computes_in_bfloat16():
    policy = actor(eos_id=2, pad_id=0)
    policy = LanguageActor(
        policy.model, policy.value_head, dataclasses.replace(policy.drawing, autocast=True)
    )
    seen = []
    layer = policy.model.model.layers[0].mlp.up_proj
    handle = layer.register_forward_hook(lambda _module, _args, out: seen.append(out.dtype))
    rollout = policy.sample(PROMPTS, generator(0, "rollout"))
    evaluate_in_parts(policy, rollout, rows_per_device=None)
    handle.remove()
    assert len(seen) > 1 and set(seen) == {torch.bfloat16}
    assert rollout.logprobs_BR.dtype == torch.float32


def test_trl_defect_06_a_knob_that_would_do_nothing_is_refused():
    with pytest.raises(ValidationError, match="gradient_checkpointing"):
        spec(gradient_checkpointing=True)


def test_trl_defect_07_the_end_token_is_trained_where_it_is_the_pad_too():
    same, apart = actor(eos_id=2, pad_id=2), actor(eos_id=2, pad_id=0)
    prompts = [[1, 20, 2, 21], [1, 30]]  # a turn of the prompt ends with the end token
    ids_BR = torch.tensor([[60, 61, 2], [70, 2, 2]])
    mask_BR = torch.tensor([[True, True, True], [True, True, False]])
    a, b = (one.evaluate(prompts, ids_BR, mask_BR) for one in (same, apart))
    torch.testing.assert_close(a.logprobs_BR, b.logprobs_BR, rtol=0, atol=1e-6)
    # the gradient reaches the end token of the second row, and not the padding after it
    table = actor(eos_id=2, pad_id=2)
    logprobs_BR = table.evaluate(prompts, ids_BR, mask_BR).logprobs_BR
    logprobs_BR[1, 1].backward(retain_graph=True)
    assert float(table.model.get_output_embeddings().weight.grad.abs().sum()) > 0
    assert float(logprobs_BR[1, 2].detach()) == 0.0
    blind = table.evaluate([[1, 20, 21], [1, 30]], ids_BR, mask_BR).logprobs_BR
    assert not torch.allclose(blind[0], logprobs_BR[0])  # the prompt's end token was seen


@torch.no_grad()
def test_trl_defect_08_a_score_is_not_read_in_the_middle_of_the_prompt(tmp_path):
    save_reward(tmp_path / "run", ModelSpec(base=str(write_base(tmp_path / "base"))))
    loaded = load_scorer(tmp_path / "run")
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    end = tokenizer.eos_token_id
    sequences = [[1, 20, end, 21, 60, end], [1, end, 30, 31, 70], [1, 40]]
    got = RewardModel(loaded.model, tokenizer).score(sequences, [4, 3, 1])
    backbone, head = loaded.model.model, loaded.model.score
    want = [
        head(backbone(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]).item() for ids in sequences
    ]
    assert got.tolist() == pytest.approx(want, abs=1e-5)


def test_trl_defect_09_the_score_stands_on_the_end_token_and_not_behind_it():
    mask_BR = torch.tensor([[True, True, True, True, False, False]])  # the end token is number 3
    assert place_at_end(torch.tensor([5.0]), mask_BR).tolist() == [[0, 0, 0, 5.0, 0, 0]]


def test_trl_defect_10_a_response_is_finished_by_the_token_that_stops_it():
    model = tiny_model()
    stop = 77  # not the tokenizer's end of text
    with torch.no_grad():
        for prompt in (PROMPTS[0],):
            hidden = model(torch.tensor([prompt]), output_hidden_states=True).hidden_states[-1][0, -1]
        weight = torch.nn.Parameter(model.get_output_embeddings().weight.detach().clone())
        weight[stop] = 50 * hidden / hidden.norm()
        model.lm_head.weight = weight
    drawing = Drawing(max_new_tokens=6, temperature=1.0, eos_id=stop, pad_id=0)
    policy = LanguageActor(model, ValueHead(model.config.hidden_size), drawing)
    rollout = policy.sample([PROMPTS[0]], generator(0, "rollout"))
    assert rollout.response(0)[-1] == stop and rollout.finished_B.tolist() == [True]
    scored = score(
        rollout, torch.tensor([3.0]), rollout.logprobs_BR, kl_coef=0.0, missing_eos=MissingEosSpec(value=-9.0)
    )
    assert scored.scores_B.tolist() == [3.0]


class Poisoned(Tabular):
    """Says what no figure should ever hold wherever there is no real token."""

    def evaluate(self, prompts, ids_BR, mask_BR):
        seen = super().evaluate(prompts, ids_BR, mask_BR)
        return Evaluation(*(torch.where(mask_BR, x_BR, 1e6) for x_BR in seen))


def test_trl_defect_11_figures_do_not_see_the_padding():
    environment = Environment.random(0)
    told = []
    for kind in (Tabular, Poisoned):
        _, scored = scene()
        policy = kind(environment.reference)
        told.append(update(policy, adam(policy), scored, spec(minibatches=2), seed=0, step=0))
    assert told[0] == told[1]
    assert 0.0 in scored.rollout.mask_BR.float()


def test_trl_defect_12_whitening_spans_the_whole_rollout_batch():
    policy, scored = scene()
    batch, mask_BR = prepare(policy, scored, spec(minibatches=4, rows_per_device=3)), scored.rollout.mask_BR
    assert abs(float(batch.advantages_BR[mask_BR].mean())) < 1e-6
    assert float((batch.advantages_BR[mask_BR] ** 2).mean()) == pytest.approx(1.0, abs=1e-4)


def test_trl_defect_17_nothing_is_said_or_trained_after_the_end():
    policy = actor(eos_id=2, pad_id=0, max_new_tokens=40)
    with torch.no_grad():
        policy.model.lm_head.weight = torch.nn.Parameter(policy.model.lm_head.weight.detach().clone())
        policy.model.lm_head.weight.mul_(0.01)  # near uniform: the end comes to some rows and not to others
    rollout = policy.sample(PROMPTS * 40, generator(0, "rollout"))
    responses = [rollout.response(i) for i in range(160)]
    assert all(2 not in ids[:-1] for ids in responses)
    assert [ids[-1] == 2 for ids in responses] == rollout.finished_B.tolist()
    assert {True, False} == set(rollout.finished_B.tolist())


def test_trl_defect_18_the_ratio_begins_at_one_in_every_precision():
    for autocast, tolerance in ((False, 1e-5), (True, 5e-2)):
        drawing = Drawing(max_new_tokens=12, temperature=0.7, eos_id=2, pad_id=0, autocast=autocast)
        model = tiny_model()
        policy = LanguageActor(model, ValueHead(model.config.hidden_size), drawing)
        rollout = policy.sample(PROMPTS * 4, generator(0, "rollout"))
        scored = score(
            rollout,
            torch.arange(16.0),
            rollout.logprobs_BR,
            kl_coef=0.0,
            missing_eos=MissingEosSpec(mode="subtract", value=0.0),
        )
        stats = update(
            policy,
            torch.optim.SGD(policy.parameters(), lr=0.0),
            scored,
            spec(prompts_per_step=16),
            seed=0,
            step=0,
            same_numerics=not autocast,
        )
        assert stats.ratio_first_error < tolerance and stats.clip_share == 0.0


def test_a_rollout_is_never_changed_by_an_update():
    policy, scored = scene()
    before = dataclasses.replace(scored.rollout, logprobs_BR=scored.rollout.logprobs_BR.clone())
    update(policy, adam(policy), scored, spec(), seed=0, step=0)
    assert isinstance(before, Rollout) and torch.equal(before.logprobs_BR, scored.rollout.logprobs_BR)
