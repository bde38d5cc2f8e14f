"""The PTX mix: its gradient is added and is the one of the definition, its cursor walks, and it keeps what was known."""

import copy

import pytest
import torch

from aligner.models.heads import ValueHead
from aligner.recipe.ppo import MissingEosSpec, PpoSpec
from aligner.rl.actors import Drawing, LanguageActor
from aligner.rl.ptx import PtxMix
from aligner.rl.score import score
from aligner.rl.seeds import generator
from aligner.rl.state import Progress
from aligner.rl.update import update
from tests.tiny import tiny_model

PROMPTS = [[1, 20, 21, 22], [1, 30], [1, 40, 41, 42, 43], [1, 50, 51]] * 4
BLOCKS = torch.randint(6, 384, (10, 12), generator=torch.Generator().manual_seed(3))


def actor():
    torch.manual_seed(0)
    drawing = Drawing(max_new_tokens=6, temperature=1.0, eos_id=2, pad_id=0)
    model = tiny_model()
    return LanguageActor(model, ValueHead(model.config.hidden_size), drawing)


def mix_of(policy, *, coef=0.5, rows=4, rows_per_device=None, ids=BLOCKS):
    return PtxMix(policy.model, ids, Progress(0.0), coef, rows, rows_per_device, seed=7)


def scored_by(policy, seed=0):
    rollout = policy.sample(PROMPTS, generator(seed, "rollout"))
    even_B = (rollout.ids_BR % 2 == 0).float().mean(1)
    rule = MissingEosSpec(mode="subtract", value=0.0)
    return score(rollout, even_B, rollout.logprobs_BR, kl_coef=0.0, missing_eos=rule)


def plan(**changes):
    return PpoSpec(**({"steps": 8, "prompts_per_step": 16, "epochs": 1, "max_grad_norm": 1e9} | changes))


def moved(policy, mix, **changes):
    """Where plain descent at a rate of one takes the weights in one optimiser step: minus the gradient."""
    start = {name: weight.detach().clone() for name, weight in policy.named_parameters().items()}
    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
    stats = update(policy, optimizer, scored_by(policy), plan(**changes), seed=0, step=0, mix=mix)
    return {name: weight.detach() - start[name] for name, weight in policy.named_parameters().items()}, stats


@pytest.mark.parametrize("rows_per_device", [None, 3])
def test_the_gradient_is_ppos_and_coef_times_that_of_transformers_own_loss(rows_per_device):
    plain, _ = moved(actor(), None)
    policy = actor()
    mixed, stats = moved(policy, mix_of(policy, rows_per_device=rows_per_device))
    judge = tiny_model()
    order = torch.randperm(10, generator=generator(7, "ptx", 0))[:4]
    loss = judge(BLOCKS[order], labels=BLOCKS[order]).loss
    loss.backward()
    assert stats.ptx_nats == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, weight in judge.named_parameters():
        got = mixed[f"policy.{name}"] - plain[f"policy.{name}"]
        torch.testing.assert_close(got, -0.5 * weight.grad, rtol=1e-3, atol=1e-5)
    for name in ("value.linear.weight", "value.linear.bias"):
        assert torch.equal(mixed[name], plain[name])


def test_every_block_is_read_once_before_any_is_read_again():
    policy = actor()
    shown = []
    policy.model.register_forward_pre_hook(
        lambda _module, _args, inputs: shown.append(inputs["input_ids"].tolist()), with_kwargs=True
    )
    mix = mix_of(policy, rows=4)
    for _ in range(5):
        mix.add_gradient()
    rows = [BLOCKS.tolist().index(block) for part in shown for block in part]
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10)) and rows[:10] != rows[10:]
    assert mix.progress.ptx_rows == 20
    again = mix_of(policy, rows=4)
    again.progress.ptx_rows = 8
    shown.clear()
    again.add_gradient()
    assert [BLOCKS.tolist().index(block) for block in shown[0]] == rows[8:12]


def test_the_cursor_follows_the_optimiser_steps_that_were_taken():
    policy = actor()
    mix = mix_of(policy)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    spec = plan(epochs=4, target_kl=1e-6, value_warmup_steps=1, max_grad_norm=1.0)
    warm_up = update(policy, optimizer, scored_by(policy), spec, seed=0, step=0, mix=mix)
    assert warm_up.optimiser_steps == 4 and mix.progress.ptx_rows == 0  # the policy waits
    early = update(policy, optimizer, scored_by(policy), spec, seed=0, step=1, mix=mix)
    assert early.optimiser_steps == 1 and mix.progress.ptx_rows == 4


@torch.no_grad()
def cross_entropy(policy, ids):
    return float(policy.model(ids, labels=ids).loss)


def test_text_that_is_mixed_in_is_forgotten_less():
    torch.manual_seed(1)
    known = torch.randint(6, 384, (1, 12)).repeat(16, 1)
    known[:, 6:] = known[:, :6]
    fresh = actor()
    teacher = torch.optim.Adam(fresh.model.parameters(), lr=3e-3)
    for _ in range(60):
        teacher.zero_grad()
        fresh.model(known, labels=known).loss.backward()
        teacher.step()
    fresh.model.zero_grad()
    before, after = cross_entropy(fresh, known), {}
    for coef in (0.0, 1.0):
        policy = copy.deepcopy(fresh)
        mix = mix_of(policy, coef=coef, ids=known) if coef else None
        optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
        for step in range(4):
            update(policy, optimizer, scored_by(policy, step), plan(epochs=4), seed=0, step=step, mix=mix)
        after[coef] = cross_entropy(policy, known)
    assert before < after[0.0] and after[1.0] < before + 0.5 * (after[0.0] - before)
