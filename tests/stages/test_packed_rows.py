"""Packed rows are learnt from exactly as the same rows are one by one; or the model is refused."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    MambaConfig,
    MistralConfig,
    PreTrainedModel,
)

from aligner.data.tokens import TokenRow
from aligner.errors import Interrupted, ModelError, RecipeError
from aligner.models.attention import check_isolation
from aligner.stages.batches import PackCollator
from aligner.stages.losses import next_token_nats
from aligner.stages.order import pack_order, padding_share
from aligner.stages.sft import answer_trainer, batches_of, train_sft
from tests.stages.test_sft import LORA, fresh_model, recipe, run_to_end, some_rows
from tests.stages.tools import (
    assert_bit_identical,
    first_gradients,
    interrupt_when_logged,
    open_run,
    weights,
)
from tests.tiny import tiny_model, tiny_tokenizer

ROWS = some_rows(count=9, seed=4)
PACKS = [[[0, 1, 2], [3]], [[4, 5], [6, 7, 8]]]  # two batches of two lines of different lengths


def alone(model: PreTrainedModel, row: TokenRow) -> Tensor:
    """Nats of the row's answers, worked out from the logits that it gets by itself."""
    logits = model(input_ids=torch.tensor([row.input_ids])).logits[0]
    learnt = [at for at in range(1, len(row.input_ids)) if row.supervised[at]]
    wanted = torch.tensor([row.input_ids[at] for at in learnt])
    return F.cross_entropy(logits[[at - 1 for at in learnt]], wanted, reduction="sum")


def gradients(model: PreTrainedModel, nats: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    nats.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    scale = max(float(grad.abs().max()) for grad in theirs.values())
    worst = max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)
    assert ours.keys() == theirs.keys() and scale > 0 and worst <= 1e-5 * scale, (worst, scale)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "qwen3"])
def test_each_row_has_its_own_loss_and_gradient(architecture: Any, kernel: str) -> None:
    model = tiny_model(tiny_tokenizer(), architecture=architecture)
    model.set_attn_implementation(kernel)
    for number, batch in enumerate(PACKS):
        for row in (row for line in batch for row in line):
            silent = [TokenRow(r.input_ids, [False] * len(r.input_ids)) for r in ROWS]
            only = [ROWS[i] if i == row else silent[i] for i in range(len(ROWS))]
            packed = PackCollator(only, PACKS, pad_id=0)([{"number": number}])
            nats = next_token_nats(model, model.get_output_embeddings(), packed)
            by_itself = alone(model, ROWS[row])
            assert nats.item() == pytest.approx(by_itself.item(), rel=1e-5)
            assert_close(gradients(model, nats), gradients(model, by_itself))


def test_a_window_of_attention_ends_with_the_row() -> None:
    """Shorter than the rows, so that a mask without it would be another model."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = MistralConfig(vocab_size=384, intermediate_size=64, sliding_window=4, **sizes)
    model = AutoModelForCausalLM.from_config(config).eval()
    batch = PackCollator(ROWS, PACKS, pad_id=0)([{"number": 0}])
    nats = next_token_nats(model, model.get_output_embeddings(), batch)
    assert nats.item() == pytest.approx(sum(alone(model, row).item() for row in ROWS[:4]), rel=1e-5)


def test_a_batch_worked_by_hand() -> None:
    rows = [TokenRow([7, 8, 9], [False, True, True]), TokenRow([6, 5], [True, True]), TokenRow([4], [True])]
    batch = PackCollator(rows, [[[2, 0], [1]]], pad_id=3)([{"number": 0}])
    assert batch["input_ids"].tolist() == [[4, 7, 8, 9], [6, 5, 3, 3]]
    assert batch["position_ids"].tolist() == [[0, 0, 1, 2], [0, 1, 0, 0]]
    assert batch["targets"].tolist() == [[-100, 8, 9, -100], [5, -100, -100, -100]]
    assert batch["lengths"].tolist() == [4, 2]


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("per_device", [8, 4])
def test_a_step_is_the_step_on_the_same_rows_unpacked(tmp_path: Path, lora: bool, per_device: int) -> None:
    rows = some_rows(count=40)
    asked = recipe(tmp_path, rows_per_device=per_device, steps=1, max_grad_norm=1e9)
    torch.manual_seed(6)
    model = fresh_model(lora=lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # it starts at 0, which would leave A without a gradient
            torch.nn.init.normal_(parameter, std=0.02)
    batches = batches_of(asked.train, [len(row.input_ids) for row in rows], 64, seed=0)
    assert len(batches) == 8 // per_device
    learnt = [rows[row] for batch in batches for line in batch for row in line]
    nats = torch.stack([alone(model, row) for row in learnt]).sum()
    by_hand = gradients(model, nats / sum(sum(row.supervised[1:]) for row in learnt))
    model.zero_grad(set_to_none=True)
    with open_run(asked) as run:
        trainer = answer_trainer(model, tiny_tokenizer(), rows, asked.train, run, seed=0, pack_length=64)
        assert_close(first_gradients(trainer), by_hand)


def test_every_epoch_has_every_row_once_in_packs_of_its_own() -> None:
    lengths = [len(row.input_ids) for row in some_rows(count=200, seed=8)]
    sizes = {"room": 64, "rows": 200, "rows_per_pass": 10}
    batches = pack_order(lengths, passes=60, seed=3, **sizes)
    lines = [line for batch in batches for line in batch]
    epochs = [lines[i * len(lines) // 3 : (i + 1) * len(lines) // 3] for i in range(3)]
    for epoch in epochs:
        assert sorted(row for line in epoch for row in line) == list(range(200))
        assert all(sum(lengths[row] for row in line) <= 64 for line in epoch)
    mates = [{frozenset(line) for line in epoch} for epoch in epochs]
    assert all(len(one & other) < len(one) / 2 for one in mates for other in mates if one is not other)
    assert batches == pack_order(lengths, passes=60, seed=3, **sizes)
    assert batches != pack_order(lengths, passes=60, seed=4, **sizes)
    assert batches[:20] == pack_order(lengths, passes=20, seed=3, **sizes)
    assert len({len(batch) for batch in batches}) <= 2
    assert statistics.mean(sum(map(len, batch)) for batch in batches) == 10
    first = Counter(row for batch in batches[:40] for line in batch for row in line)
    assert set(first.values()) == {2}


def test_an_epoch_of_a_mixture_packs_the_rows_it_reads() -> None:
    lengths = [len(row.input_ids) for row in some_rows(count=200, seed=9)]
    halves = [list(range(100)), list(range(100, 200))]
    batches = pack_order(
        lengths, room=64, rows=100, rows_per_pass=10, passes=40, seed=3, epoch_rows=lambda e: halves[e % 2]
    )
    lines = [line for batch in batches for line in batch]
    assert len(batches) == 40 and all(sum(lengths[row] for row in line) <= 64 for line in lines)
    read = [row for line in lines for row in line]
    for epoch in range(4):
        assert sorted(read[100 * epoch : 100 * epoch + 100]) == halves[epoch % 2]
    packs = len(lines) / len(batches)
    assert all(abs(len(batch) - packs) <= 1 for batch in batches)


def test_a_pack_that_holds_more_rows_than_a_pass_is_told() -> None:
    what = (
        r"train.packing: a pack of 64 tokens holds 16.0 rows on average, and a pass 8\n.*raise rows_per_step"
    )
    with pytest.raises(RecipeError, match=what):
        pack_order([4] * 160, room=64, rows=160, rows_per_pass=8, passes=3, seed=0)


def test_the_padding_that_is_planned_is_the_padding_that_is_read(tmp_path: Path) -> None:
    assert padding_share([[[0], [1]], [[0, 1]]], [3, 5]) == pytest.approx(2 / 18)
    shares = {}
    for packing in (False, True):
        asked = recipe(tmp_path, f"packing-{packing}", rows_per_device=4, log_every=6, packing=packing)
        results, logged = run_to_end(asked)
        (shares[packing],) = [row["train/padding_share"] for row in logged if "train/padding_share" in row]
        assert results["sft/padding_share"] == pytest.approx(shares[packing])
    assert 0 < shares[True] < shares[False]


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_interrupted_and_resumed_is_the_straight_run(tmp_path: Path, lora: dict[str, Any] | None) -> None:
    """Into the second epoch: 56 rows, 9 steps of about 8."""
    settings = {"lora": lora, "rows_per_device": 4, "steps": 9, "packing": True, "pack_length": 140}
    results, rows = run_to_end(recipe(tmp_path, "straight", **settings))
    broken = recipe(tmp_path, "broken", **settings)
    with pytest.raises(Interrupted, match="step 4 of 9"), open_run(broken) as run:
        interrupt_when_logged(run, 3)
        train_sft(broken, run)
    again, again_rows = run_to_end(broken)
    assert again == results
    assert_bit_identical(weights(tmp_path / "straight" / "model"), weights(tmp_path / "broken" / "model"))
    timeless = [
        [{key: value for key, value in row.items() if "second" not in key} for row in one]
        for one in (rows, again_rows)
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize(
    "config",
    [
        MambaConfig(vocab_size=384, hidden_size=32, num_hidden_layers=2),  # carries a state along the line
        BloomConfig(vocab_size=384, hidden_size=32, n_layer=2, n_head=4),  # makes a mask of its own
    ],
    ids=lambda config: config.model_type,
)
def test_a_model_that_sees_across_rows_is_refused(config: Any) -> None:
    torch.manual_seed(0)
    with pytest.raises(ModelError, match="ForCausalLM lets rows that share a line see each other"):
        check_isolation(AutoModelForCausalLM.from_config(config), 64)


def test_packs_may_be_longer_than_the_context_and_vocabularies_small() -> None:
    config = GPT2Config(vocab_size=100, n_embd=32, n_layer=1, n_head=2, n_positions=64)
    check_isolation(AutoModelForCausalLM.from_config(config), 128)


@pytest.mark.parametrize("length", [2, 3, 33, 128])
def test_models_that_do_not_are_taken_and_left_as_they_were(length: int) -> None:
    model = fresh_model(lora=True).train()
    state, before = torch.random.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    check_isolation(model, length)
    assert model.training and torch.equal(torch.random.get_rng_state(), state)
    assert_bit_identical(before, model.state_dict())


@pytest.mark.parametrize(
    ("train", "what"),
    [
        ({"pack_length": 256}, "pack_length = 256 is for packing: true alone"),
        ({"packing": True, "pack_length": 64}, "64 does not hold a row of data.max_length = 128 tokens"),
    ],
)
def test_lengths_that_cannot_be_are_told(tmp_path: Path, train: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        recipe(tmp_path, **train)
