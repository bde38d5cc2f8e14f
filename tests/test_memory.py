"""What a stage would hold: by hand, and of what autograd keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aligner.errors import ModelError
from aligner.memory import (
    Memory,
    Pass,
    in_memory,
    kept_by,
    kept_in,
    largest_pass,
    moment_bytes,
    training_kept,
    training_memory,
    weight_bytes,
    work_of,
)
from aligner.memory_rollouts import rollout_memory, rows_of_pass, sampling_bytes
from aligner.recipe.model import ModelSpec
from aligner.recipe.ppo import PpoRecipe
from aligner.recipe.stages import RewardRecipe, SftRecipe
from aligner.run.machine import Room
from aligner.stages.order import RowBatches
from aligner.stages.stage import Precision
from aligner.start import Start
from tests.tiny import tiny_model, tiny_tokenizer

LAYERS, WIDTH, INNER, WORDS = 2, 32, 64, 384
LINEAR = LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * INNER)  # attention, and the three of a gated layer
LORA = {"rank": 4, "alpha": 8}
ADAPTER = LAYERS * 4 * (4 * 2 * WIDTH + 3 * (WIDTH + INNER))  # rank x (inputs + outputs) of each
FP32 = Precision("fp32", "")
FILES = {"train": [{"path": "rows.jsonl"}]}


def start(*, adapter: bool = False) -> Start:
    model = tiny_model(tiny_tokenizer())
    return Start(tiny_tokenizer(), model.config, model.num_parameters(), adapter=adapter)


def spec(**model: Any) -> ModelSpec:
    return ModelSpec.model_validate({"base": "base"} | model)


def sft(model: dict[str, Any], **train: Any) -> SftRecipe:
    length = {"steps": 1, "rows_per_step": 8, "precision": "fp32"}
    return SftRecipe.model_validate(
        {
            "stage": "sft",
            "output": "run",
            "model": {"base": "base"} | model,
            "data": FILES,
            "train": length | train,
        }
    )


def ppo(model: dict[str, Any], **numbers: Any) -> PpoRecipe:
    return PpoRecipe.model_validate(
        {
            "stage": "ppo", "output": "run", "model": {"base": "base"} | model, "data": FILES,
            "reward": [{"function": "a:b"}], "sampling": {"max_new_tokens": 8},
            "ppo": {"steps": 1, "prompts_per_step": 16} | numbers,
        }
    )  # fmt: skip


def test_weights_are_counted_in_the_numbers_they_are_loaded_in() -> None:
    begin = start()
    whole = 4 * begin.parameters
    assert weight_bytes(begin, None) == weight_bytes(begin, spec()) == whole
    assert begin.adapter_parameters(spec(lora=LORA)) == ADAPTER
    assert weight_bytes(begin, spec(lora=LORA)) == whole + 4 * ADAPTER
    assert weight_bytes(begin, spec(lora=LORA, quantize="8bit")) == whole - 3 * LINEAR + 4 * ADAPTER
    four = weight_bytes(begin, spec(lora=LORA, quantize="4bit"))
    assert four == pytest.approx(whole - 3.484 * LINEAR + 4 * ADAPTER, rel=1e-3)


def test_muon_has_one_moment_of_hidden_matrices() -> None:
    model = tiny_model()
    every = sum(weight.numel() for weight in model.parameters())
    assert moment_bytes(model.parameters(), model=model) == 8 * every
    assert moment_bytes(model.parameters(), model=model, optimizer="muon") == 8 * every - 4 * LINEAR


def test_what_a_pass_keeps_is_counted_once_and_without_the_weights() -> None:
    layer = nn.Linear(6, 5)
    table = torch.ones(7, requires_grad=True)

    def loss(rows: int) -> torch.Tensor:
        x = torch.ones(rows, 6, requires_grad=True)
        seen = torch.sigmoid(layer(x))  # keeps x for the weight's gradient, and its own output
        return (
            seen * seen
        ).sum() + table.exp().sum()  # that output twice more; exp keeps its own, whatever the rows

    kept = kept_by(loss, layer)
    assert kept == (4 * 7, 4 * (6 + 5))
    assert kept.of(3) == 4 * (7 + 33)


def test_a_backward_pass_begins_with_activations_and_ends_with_gradients() -> None:
    assert work_of(100, logits=20, gradients=70, passes=1) == 120
    assert work_of(100, logits=20, gradients=700, passes=1) == 700
    assert work_of(100, logits=20, gradients=70, passes=2) == 190


def test_the_heap_takes_more_than_a_pass_keeps() -> None:
    assert in_memory(1000, "peft") > in_memory(1000, "plain") >= 1000 or torch.cuda.is_available()
    begin, one = start(), Pass(8, 20, 6)
    held = training_memory(sft({}), begin, one, begin.random_model()).work
    kept = training_kept(begin, begin.random_model(), one, FP32, head=False).of(8)
    assert held == in_memory(kept, "plain") + 2 * 4 * 8 * 6 * WORDS  # and gradients of logits


def test_quantised_layers_of_a_cpu_keep_float32() -> None:
    bf16 = {"precision": "bf16"}
    assert kept_in(sft({"lora": LORA}, **bf16)).name == "bf16"
    on_cpu = kept_in(sft({"lora": LORA, "quantize": "4bit"}, **bf16)).name
    assert on_cpu == ("bf16" if torch.cuda.is_available() else "fp32")


def test_the_largest_pass_is_the_widest_with_its_padding() -> None:
    lengths = [5, 9, 2, 2, 8, 1]
    assert largest_pass(RowBatches([0, 2, 1, 3, 4, 5], 2), lengths, scored=0.5) == Pass(2, 9, 4)
    assert largest_pass([[[0, 1], [4]], [[2], [3], [5]]], lengths, scored=0.0) == Pass(2, 14, 1)


def test_only_scored_tokens_have_logits() -> None:
    begin, model = start(), tiny_model()
    few, more = (
        training_kept(begin, model, Pass(1, 20, scored), FP32, head=False).per_row for scored in (4, 12)
    )
    assert more - few == pytest.approx(
        4 * 8 * (WORDS + WIDTH), rel=0.05
    )  # log-probabilities, what the head reads
    assert training_kept(begin, model, Pass(1, 20, 4), FP32, head=True).per_row < few


@pytest.mark.parametrize("model", [{}, {"lora": LORA}])
def test_a_pass_keeps_what_it_kept_of_one_row_of_each(model: dict[str, Any]) -> None:
    """Against what the real backward graph of eight rows holds."""
    begin, asked = start(), spec(**model)
    adapted = begin.adapted(begin.random_model(), asked)
    kept = training_kept(begin, adapted, Pass(8, 20, 6), FP32, head=False)
    seen: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    ids_BT = torch.randint(0, WORDS, (8, 20))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = adapted(input_ids=ids_BT, logits_to_keep=6, use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), ids_BT[:, :6].flatten(), reduction="sum")
    own = {weight.data_ptr() for weight in [*adapted.parameters(), *adapted.buffers()]}
    held = sum(storage.nbytes() for place, storage in seen.items() if place not in own)
    assert loss.requires_grad and kept.of(8) == pytest.approx(held, rel=0.05)


def test_what_a_stage_holds_is_the_sum_of_its_parts() -> None:
    begin, one = start(), Pass(8, 20, 6)
    whole = training_memory(sft({}), begin, one, begin.random_model())
    assert (whole.weights, whole.moments) == (4 * begin.parameters, 8 * begin.parameters)
    assert (
        whole.total == whole.weights + whole.moments + whole.work
        and whole.busiest == "a pass over 8 x 20 tokens"
    )
    adapted = training_memory(sft({"lora": LORA}), begin, one, begin.random_model())
    assert adapted.moments == 8 * ADAPTER
    saved = training_memory(sft({}, checkpoint_every=1), begin, Pass(1, 4, 1), begin.random_model())
    assert (saved.busiest, saved.work) == ("a checkpoint", 12 * begin.parameters)
    data = FILES | {"max_length": 64}
    asked = {"stage": "reward", "output": "run", "model": {"base": "b", "lora": LORA}, "data": data}
    reward = RewardRecipe.model_validate(asked | {"train": {"steps": 1, "rows_per_step": 2}})
    read = training_memory(reward, begin, Pass(2, 4, 1), begin.random_model())
    assert (read.busiest, read.work) == ("the saved model, read back", 4 * begin.parameters)


def test_roles_share_the_backbone_or_are_models_of_their_own() -> None:
    begin, whole = start(), 4 * start().parameters
    adapted = ppo({"lora": LORA})
    one = rollout_memory(adapted, begin, prompt_tokens=12, shared=0, apart=0)
    assert one.weights == whole + 2 * 4 * ADAPTER and one.moments == 8 * ADAPTER  # policy and reference
    more = rollout_memory(adapted, begin, prompt_tokens=12, shared=1, apart=1)
    assert more.weights - one.weights == 4 * ADAPTER and more.guessed == whole  # which refuses nothing
    assert more.total - one.total == 4 * ADAPTER + whole
    full = rollout_memory(ppo({}), begin, prompt_tokens=12, shared=0, apart=0)
    assert full.weights == 2 * whole and full.moments == 2 * whole


def test_a_critic_of_its_own_costs_its_adapter_and_its_pass() -> None:
    begin = start()
    head, trunk = (
        rollout_memory(ppo({"lora": LORA}, value=value), begin, prompt_tokens=12, shared=0, apart=0)
        for value in ("head", "adapter")
    )
    assert trunk.weights - head.weights == 4 * ADAPTER and trunk.moments - head.moments == 8 * ADAPTER
    assert 1.5 < trunk.work / head.work < 2  # logits are the policy's alone


def test_sampling_holds_keys_values_and_added_up_weights() -> None:
    begin = start()
    cache, choice = 4 * 2 * LAYERS * WIDTH * 16 * 20, 20 * 16 * WORDS
    assert sampling_bytes(ppo({}), begin, 12) == cache + choice
    assert sampling_bytes(ppo({"lora": LORA}), begin, 12) == cache + choice + 4 * LINEAR
    assert sampling_bytes(ppo({"lora": LORA, "quantize": "4bit"}), begin, 12) == cache + choice


def test_a_pass_of_ppo_has_as_many_tokens_as_the_update_reads_at_once() -> None:
    assert rows_of_pass(ppo({}, prompts_per_step=512), 100) == 40  # of 4,096 tokens
    assert rows_of_pass(ppo({}), 100) == 16
    assert rows_of_pass(ppo({}, rows_per_device=4), 100) == 4


def test_the_rule_of_what_does_not_fit() -> None:
    """Refused where no smaller batch would help; a word where less is free now."""
    held, gib = Memory(3 << 30, 6 << 30, 2 << 30, "a pass over 8 x 20 tokens"), 1 << 30
    fits = held.row(Room(11 * gib, 16 * gib, "the machine"), "sft")
    assert (fits.value, "fit" in fits.why) == ("11.00 GiB", False)
    assert fits.why == "weights 3.00 GiB, optimiser 6.00 GiB, a pass over 8 x 20 tokens 2.00 GiB"
    assert (
        "does not fit the 10.00 GiB that are free" in held.row(Room(10 * gib, 9 * gib, "the GPU"), "sft").why
    )
    with pytest.raises(ModelError, match=r"alone take 9.00 GiB, and the machine has 8.00 GiB"):
        held.row(Room(8 * gib, 8 * gib, "the machine"), "sft")
