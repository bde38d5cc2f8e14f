from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import TrainingArguments

from aligner.errors import DataError, RecipeError
from aligner.recipe.training import TrainSpec
from aligner.stages import stage
from aligner.stages.optimizer import MuonAdamW, hidden_matrices, muon_adamw
from aligner.stages.order import Curriculum, row_order, with_curriculum
from aligner.stages.pretrain import train_pretrain
from aligner.stages.reward import train_reward
from aligner.stages.sft import train_sft
from aligner.stages.stage import (
    epochs_begun,
    micro_batches,
    optimiser_steps,
    resolve_precision,
    training_arguments,
)
from aligner.stages.stop import gentle_stop
from tests.stages import test_pretrain, test_reward, test_sft
from tests.stages.tools import open_run, write_jsonl
from tests.tiny import tiny_model


def test_every_row_once_per_epoch_and_no_short_step() -> None:
    order = row_order(rows=10, rows_per_step=4, steps=5, seed=3)
    assert Counter(order) == dict.fromkeys(range(10), 2)
    assert order == row_order(rows=10, rows_per_step=4, steps=5, seed=3)
    assert order != row_order(rows=10, rows_per_step=4, steps=5, seed=4)
    assert order[:12] == row_order(rows=10, rows_per_step=4, steps=3, seed=3)
    assert Counter(row_order(rows=3, rows_per_step=8, steps=3, seed=0)) == dict.fromkeys(range(3), 8)


def test_an_epoch_may_say_which_rows_it_reads() -> None:
    def of_epoch(number: int) -> list[int]:
        return [100 * number + row for row in (1, 1, 2, 3, 5)]  # a row may come twice

    order = row_order(rows=5, rows_per_step=4, steps=5, seed=3, epoch_rows=of_epoch)
    assert len(order) == 20
    for epoch in range(4):
        read = order[5 * epoch : 5 * epoch + 5]
        assert sorted(read) == of_epoch(epoch)
    assert order == row_order(rows=5, rows_per_step=4, steps=5, seed=3, epoch_rows=of_epoch)
    everything = row_order(rows=5, rows_per_step=4, steps=5, seed=3, epoch_rows=lambda _: range(5))
    assert everything == row_order(rows=5, rows_per_step=4, steps=5, seed=3)


@pytest.mark.parametrize(
    ("rows", "epochs", "begun"), [(64, 2, 2), (64, 0.5, 1), (65, 2, 2), (79, 1, 2), (7, 3, 4)]
)
def test_epochs_begun_are_those_whose_rows_are_read(rows: int, epochs: float, begun: int) -> None:
    train = TrainSpec(epochs=epochs, rows_per_step=8)
    assert epochs_begun(train, rows) == begun
    order = row_order(rows=rows, rows_per_step=8, steps=optimiser_steps(train, rows=rows), seed=0)
    assert max(Counter(order).values()) == begun


def test_length_groups_save_padding_and_lose_no_row() -> None:
    lengths = torch.randint(5, 200, (400,), generator=torch.Generator().manual_seed(0)).tolist()

    def padded(order: list[int]) -> int:
        steps = [order[i : i + 8] for i in range(0, len(order), 8)]
        return sum(max(lengths[row] for row in step) * len(step) for step in steps)

    plain = row_order(rows=400, rows_per_step=8, steps=100, seed=0)
    grouped = row_order(rows=400, rows_per_step=8, steps=100, seed=0, lengths=lengths)
    assert Counter(grouped) == Counter(plain)
    assert padded(grouped) < 1.1 * sum(lengths) * 2 < padded(plain)
    steps = [max(lengths[row] for row in grouped[i : i + 8]) for i in range(0, 400, 8)]
    assert steps != sorted(steps)


def test_a_curriculum_comes_early_once_and_ever_more_rarely() -> None:
    """300 rows in the first 3000 of 9000 slots: the line through 0 at `until` puts 1 - (1 - x)^2 of them before x."""
    ordinary = row_order(rows=700, rows_per_step=10, steps=900, seed=3)
    moments: list[int] = []
    for seed in range(20):
        order = with_curriculum(ordinary, Curriculum(300, 1 / 3), rows=700, seed=seed)
        assert len(order) == 9000
        early = [slot for slot, row in enumerate(order) if row >= 700]
        assert sorted(order[slot] for slot in early) == list(range(700, 1000)) and early[-1] < 3000
        assert [row for row in order if row < 700] == ordinary[:8700]
        assert [order[slot] for slot in early] != sorted(order[slot] for slot in early)
        moments += early
    for tenths in range(1, 10):
        share = sum(slot < 300 * tenths for slot in moments) / len(moments)
        assert share == pytest.approx(1 - (1 - tenths / 10) ** 2, abs=0.025)
    # Every ordinary row once per epoch, as without a curriculum.
    assert Counter(row for row in order if row < 700) - Counter(ordinary[:8400]) == Counter(
        ordinary[8400:8700]
    )
    assert (
        order
        == with_curriculum(ordinary, Curriculum(300, 1 / 3), rows=700, seed=19)
        != with_curriculum(ordinary, Curriculum(300, 1 / 3), rows=700, seed=18)
    )


@pytest.mark.parametrize(
    ("rows", "until", "placed"), [(10, 0.5, 10), (11, 0.5, 10), (500, 1.0, 20), (5, 0.01, 0)]
)
def test_a_curriculum_takes_half_of_its_slots_at_most(rows: int, until: float, placed: int) -> None:
    curriculum = Curriculum(rows, until)
    order = with_curriculum([0] * 40, curriculum, rows=1, seed=0)
    early = [row for row in order if row > 0]
    assert curriculum.rows_placed(40) == placed == len(early) == len(set(early))
    assert len(order) == 40 and all(row <= rows for row in early)
    assert not any(order[int(40 * until) :])


def test_steps_and_passes() -> None:
    assert optimiser_steps(TrainSpec(epochs=2.0, rows_per_step=8), rows=100) == 25
    assert optimiser_steps(TrainSpec(epochs=0.001, rows_per_step=8), rows=100) == 1
    assert optimiser_steps(TrainSpec(steps=7), rows=100) == 7
    assert micro_batches(TrainSpec(steps=1, rows_per_step=8, rows_per_device=2)) == 4


def test_passes_must_divide_among_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    class ThreeDevices:
        num_processes = 3

    monkeypatch.setattr(stage, "PartialState", ThreeDevices)
    assert micro_batches(TrainSpec(steps=1, rows_per_step=12, rows_per_device=2)) == 2
    assert micro_batches(TrainSpec(steps=1, rows_per_step=12)) == 1
    with pytest.raises(RecipeError, match=r"no multiple of \d+ \(rows of a pass x 3 devices\)"):
        micro_batches(TrainSpec(steps=1, rows_per_step=8, rows_per_device=2))


@pytest.mark.parametrize(
    ("able", "name"), [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({}, "fp32")]
)
def test_auto_precision_is_what_the_cpu_computes(
    monkeypatch: pytest.MonkeyPatch, able: Any, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert resolve_precision("auto").name == name
    assert resolve_precision("fp32").name == "fp32"


def test_arguments_say_what_the_recipe_says(tmp_path: Path) -> None:
    train = TrainSpec(epochs=2.0, rows_per_step=8, rows_per_device=2, learning_rate=2e-3, schedule="constant")
    with open_run(test_sft.recipe(tmp_path)) as run:
        args = training_arguments(train, run, rows=80, seed=7, kind=TrainingArguments)
    assert (args.max_steps, args.per_device_train_batch_size, args.gradient_accumulation_steps) == (20, 2, 4)
    assert (args.learning_rate, args.warmup_steps, args.seed) == (2e-3, 1, 7)
    assert (args.report_to, args.push_to_hub, args.bf16, args.n_gpu <= 1) == ([], False, False, True)


def test_a_stop_is_gentle_and_off_the_main_thread_nothing_is_caught() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with gentle_stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGTERM) is before
    seen: list[bool] = []

    def elsewhere() -> None:
        with gentle_stop() as other:
            seen.append(other.asked)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [False]


@pytest.mark.parametrize("tied", [True, False])
def test_muon_takes_the_hidden_matrices_only(tied: bool) -> None:
    model = tiny_model(tie_embeddings=tied)
    names = {id(p): name for name, p in model.named_parameters()}
    taken = {names[id(p)] for p in hidden_matrices(model)}
    assert len(taken) == 2 * 7
    assert all("proj" in name for name in taken)
    optimizer = muon_adamw(model, lr=1e-2, beta2=0.95, weight_decay=0.1)
    everywhere = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(everywhere) == sorted(id(p) for p in model.parameters())
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay["model.norm.weight"] == 0
    assert decay["model.embed_tokens.weight"] == 0.1


def test_muon_and_adamw_in_one_coat_step_as_they_do_alone() -> None:
    def parts() -> list[nn.Parameter]:
        torch.manual_seed(0)
        return [nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(5))]

    def loss(parameters: list[nn.Parameter]) -> torch.Tensor:
        return (parameters[0] ** 2).sum() + (parameters[1] ** 3).sum()

    (matrix, vector), (lone_matrix, lone_vector) = parts(), parts()
    both = MuonAdamW([matrix], [vector], lr=1e-2, beta2=0.95, weight_decay=0.1)
    alone = [
        torch.optim.Muon([lone_matrix], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([lone_vector], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for step in range(6):
        for group in both.param_groups:
            group["lr"] = 1e-2 / (step + 1)
        for one in alone:
            one.param_groups[0]["lr"] = 1e-2 / (step + 1)
        both.zero_grad()
        loss([matrix, vector]).backward()
        both.step()
        if step == 2:  # through a checkpoint and back
            state = both.state_dict()
            both = MuonAdamW([matrix], [vector], lr=1e-2, beta2=0.95, weight_decay=0.1)
            both.load_state_dict(state)
        for one in alone:
            one.zero_grad()
        loss([lone_matrix, lone_vector]).backward()
        for one in alone:
            one.step()
    torch.testing.assert_close(matrix, lone_matrix, rtol=0, atol=0)
    torch.testing.assert_close(vector, lone_vector, rtol=1e-6, atol=1e-7)


def test_too_little_text_for_one_block_is_told(tmp_path: Path) -> None:
    asked = test_pretrain.recipe(tmp_path)
    write_jsonl(tmp_path / "texts.jsonl", [{"text": "This is a text of twenty letters and no more."}])
    asked = asked.model_copy(
        update={
            "data": asked.data.model_copy(
                update={"holdout": asked.data.holdout.model_copy(update={"rows": 0}), "block_length": 512}
            )
        }
    )
    with open_run(asked) as run, pytest.raises(DataError, match="do not fill one block of 512"):
        train_pretrain(asked, run)


FRESH = """
import json, sys, torch
from pathlib import Path
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from aligner.models.heads import RewardModel
root, rows = Path(sys.argv[1]), json.loads(sys.argv[2])
def nats(model):
    found = []
    for row in rows:
        ids = torch.tensor([row])
        with torch.no_grad():
            logits = model.eval()(input_ids=ids).logits[0, :-1]
        found.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item())
    return found
base = AutoModelForCausalLM.from_pretrained(root / "base" / "model")
tuned = AutoPeftModelForCausalLM.from_pretrained(root / "sft" / "model")
assert AutoTokenizer.from_pretrained(root / "sft" / "model").chat_template
print(json.dumps([nats(base), nats(tuned), RewardModel.from_folder(root / "reward").score(rows, [1, 3]).tolist()]))
"""


def test_three_stages_hand_on_and_load_in_a_fresh_process(
    tmp_path: Path,
) -> None:
    from aligner.models.heads import RewardModel
    from aligner.models.load import load_trained

    base = test_pretrain.recipe(tmp_path, "base", steps=3)
    with open_run(base) as run:
        train_pretrain(base, run)
    sft = test_sft.recipe(tmp_path, "sft", lora={"rank": 2, "alpha": 4}, steps=3)
    sft = sft.model_copy(update={"model": sft.model.model_copy(update={"base": base.output})})
    with open_run(sft) as run:
        train_sft(sft, run)
        assert run.manifest.parents["base"].startswith(base.output)
    reward = test_reward.recipe(tmp_path, "reward", steps=3)
    reward = reward.model_copy(update={"model": reward.model.model_copy(update={"base": sft.output})})
    with open_run(reward) as run:
        train_reward(reward, run)
    rows = [[1, 9, 8, 7, 2], [1, 50, 60, 70, 80, 90, 2]]
    script = [sys.executable, "-c", FRESH, str(tmp_path), json.dumps(rows)]
    fresh = subprocess.run(script, capture_output=True, text=True, check=True)
    base_nats, sft_nats, scores = json.loads(fresh.stdout.splitlines()[-1])
    for found, folder in ((base_nats, base.output), (sft_nats, sft.output)):
        model = load_trained(folder).model
        logits = [model(input_ids=torch.tensor([row])).logits[0, :-1] for row in rows]
        wanted = [torch.tensor(row[1:]) for row in rows]
        here = [F.cross_entropy(a, b, reduction="sum").item() for a, b in zip(logits, wanted, strict=True)]
        assert found == pytest.approx(here, rel=1e-6)
    assert scores == pytest.approx(
        RewardModel.from_folder(reward.output).score(rows, [1, 3]).tolist(), abs=1e-5
    )
