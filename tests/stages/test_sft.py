from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F
from torch.utils.data import Sampler
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer

from aligner.data.tokens import TokenRow
from aligner.errors import Interrupted
from aligner.models.adapters import attach_lora
from aligner.recipe.model import LoraSpec
from aligner.recipe.stages import SftRecipe
from aligner.stages.batches import AnswerCollator, labelled
from aligner.stages.losses import next_token_nats
from aligner.stages.order import FixedOrder
from aligner.stages.sft import answer_trainer, train_sft
from aligner.stages.stage import training_arguments
from tests.data.tasks import nli_rows, write_task
from tests.stages.tools import (
    TRAIN,
    assert_bit_identical,
    assert_same_gradients,
    first_gradients,
    interrupt_when_logged,
    open_run,
    save_tiny,
    weights,
    write_jsonl,
)
from tests.tiny import tiny_model, tiny_tokenizer

LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}
NAMES = ("Mia", "Tom", "Ann", "Bob")


def recipe(folder: Path, name: str = "run", *, lora: dict[str, Any] | None = None, **train: Any) -> SftRecipe:
    chats, base = folder / "chats.jsonl", folder / "tiny"
    if not base.exists():
        save_tiny(base, tiny_tokenizer())
    if not chats.exists():
        chooser = random.Random(0)
        colors = {who: chooser.choice(("red", "blue", "green")) for who in NAMES}
        rows = []
        for number in range(64):
            who = NAMES[number % 4]
            ask = {
                "role": "user",
                "content": "please " * chooser.randrange(5) + f"What is the color of the cat of {who}?",
            }
            rows.append({"messages": [ask, {"role": "assistant", "content": colors[who]}]})
        write_jsonl(chats, rows)
    source = [{"path": str(chats), "format": "messages"}]
    return SftRecipe.model_validate(
        {
            "stage": "sft",
            "output": str(folder / name),
            "model": {"base": str(base), "lora": lora},
            "data": {"train": source, "holdout": {"rows": 8}, "max_length": 128},
            "train": {**TRAIN, **train},
        }
    )


def some_rows(*, count: int, seed: int = 0) -> list[TokenRow]:
    """Random ids of unequal lengths; the answers are the supervised tail, some rows with two answers."""
    chooser = random.Random(seed)
    rows = []
    for _ in range(count):
        prompt, answer = chooser.randrange(3, 25), chooser.randrange(1, 9)
        ids = [chooser.randrange(6, 380) for _ in range(prompt + answer)]
        learnt = [index >= prompt or (prompt > 20 and 5 <= index < 8) for index in range(prompt + answer)]
        rows.append(TokenRow(ids, learnt))
    return rows


def fresh_model(*, lora: bool) -> PreTrainedModel:
    model = tiny_model(tiny_tokenizer())
    if not lora:
        return model
    torch.manual_seed(5)
    adapted = attach_lora(model, LoraSpec(rank=4, alpha=8), "CAUSAL_LM")
    return adapted


class TrlAsItComes(SFTTrainer):
    """TRL's own loss; only the order of the rows is ours, so that both see the same batches."""

    order: list[int]

    def _get_train_sampler(self, train_dataset: object = None) -> Sampler[int]:
        return FixedOrder(self.order)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_losses_are_those_of_trl(tmp_path: Path, lora: bool) -> None:
    rows, tokenizer = some_rows(count=40), tiny_tokenizer()
    asked = recipe(tmp_path, "ours", steps=20, rows_per_step=8, rows_per_device=4, learning_rate=1e-3)
    with open_run(asked) as run:
        ours = answer_trainer(fresh_model(lora=lora), tokenizer, rows, asked.train, run, seed=0)
        ours.train()
    theirs_recipe = recipe(tmp_path, "theirs")
    with open_run(theirs_recipe) as run:
        args = training_arguments(asked.train, run, rows=len(rows), seed=0, kind=SFTConfig)
        args.max_length = None
        theirs = TrlAsItComes(
            model=fresh_model(lora=lora),
            args=args,
            train_dataset=Dataset.from_list([labelled(row) for row in rows]),
            processing_class=tokenizer,
        )
        theirs.order = ours.plan.order
        theirs.train()
    pairs = [
        (mine["loss"], yours["loss"])
        for mine, yours in zip(ours.state.log_history, theirs.state.log_history, strict=True)
        if "loss" in mine
    ]
    assert len(pairs) == 20
    worst = max(abs(mine - yours) / yours for mine, yours in pairs)
    assert worst <= 1e-6


def test_only_answers_count_and_padding_is_inert() -> None:
    model, rows = tiny_model(tiny_tokenizer(), tie_embeddings=False), some_rows(count=6, seed=3)
    batch = AnswerCollator(pad_id=0)([labelled(row) for row in rows])
    nats = next_token_nats(model, model.get_output_embeddings(), batch)
    by_hand = torch.zeros(())
    for row in rows:
        logits = model(input_ids=torch.tensor([row.input_ids])).logits[0]
        learnt = [at for at in range(1, len(row.input_ids)) if row.supervised[at]]
        wanted = torch.tensor([row.input_ids[at] for at in learnt])
        by_hand = by_hand + F.cross_entropy(logits[[at - 1 for at in learnt]], wanted, reduction="sum")
    assert nats.item() == pytest.approx(by_hand.item(), rel=1e-6)

    poisoned = AnswerCollator(pad_id=377)([labelled(row) for row in rows])
    assert next_token_nats(model, model.get_output_embeddings(), poisoned).item() == pytest.approx(
        nats.item(), rel=1e-6
    )
    eos_inside = [
        TokenRow([*row.input_ids[:-1], 0], row.supervised) for row in rows
    ]  # ends in the pad token's id
    kept = AnswerCollator(pad_id=0)([labelled(row) for row in eos_inside])
    assert int((kept["targets"] != -100).sum()) == sum(sum(row.supervised[1:]) for row in rows)


def test_what_the_prompt_says_next_is_not_learnt() -> None:
    """Other ids in the last prompt place change what is read, never what is asked for; nothing supervised, no gradient."""
    model, [row] = tiny_model(tiny_tokenizer()), some_rows(count=1)
    collate, head = AnswerCollator(pad_id=0), model.get_output_embeddings()
    first = row.supervised.index(True)
    poisoned = TokenRow([*row.input_ids[: first - 1], 379, *row.input_ids[first:]], row.supervised)
    assert torch.equal(collate([labelled(row)])["targets"], collate([labelled(poisoned)])["targets"])
    silent = TokenRow(row.input_ids, [False] * len(row.input_ids))
    nats = next_token_nats(model, head, collate([labelled(silent)]))
    nats.backward()
    assert nats.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_micro_batches_change_nothing(tmp_path: Path, lora: bool) -> None:
    rows, found = some_rows(count=24), []
    for per_device in (8, 4, 2, 1):
        asked = recipe(tmp_path, f"by{per_device}", steps=1, rows_per_device=per_device)
        with open_run(asked) as run:
            model = fresh_model(lora=lora)
            if lora:  # B starts at 0, which would leave A without a gradient
                torch.manual_seed(6)
                for name, parameter in model.named_parameters():
                    if "lora_B" in name:
                        torch.nn.init.normal_(parameter, std=0.02)
            found.append(
                first_gradients(answer_trainer(model, tiny_tokenizer(), rows, asked.train, run, seed=0))
            )
    for other in found[1:]:
        assert_same_gradients(found[0], other)


def run_to_end(asked: SftRecipe) -> tuple[dict[str, float], list[dict[str, Any]]]:
    with open_run(asked) as run:
        return train_sft(asked, run).results, run.metrics.rows()


def test_learns_the_answers(tmp_path: Path) -> None:
    results, rows = run_to_end(recipe(tmp_path, steps=30, learning_rate=1e-2, evaluate_every=10))
    assert results["sft/holdout_loss_nats"] < 0.5 * results["sft/base_holdout_loss_nats"]
    assert [row["step"] for row in rows if "holdout/loss_nats" in row] == [10, 20, 30]
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))


def mixed(folder: Path, name: str) -> SftRecipe:
    """Six steps of 8 rows, in epochs of 20: 10 conversations and twice the 5 documents in each."""
    asked = recipe(folder, name)
    (folder / "text.txt").write_text("\n\n".join(f"{who} has a cat. " * 6 for who in (*NAMES, "Eve")))
    data = asked.data.model_dump() | {"mixture": {"rows": 20}, "max_length": 2000}
    data["train"].append({"path": str(folder / "text.txt"), "format": "text", "share": 0.5})
    return SftRecipe.model_validate(asked.model_dump() | {"data": data})


def test_a_mixture_is_trained_told_noted_and_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, _ = run_to_end(mixed(tmp_path, "straight"))
    said = [line.split() for line in capsys.readouterr().err.splitlines()]
    broken = mixed(tmp_path, "broken")
    with pytest.raises(Interrupted, match="step 4 of 6"), open_run(broken) as run:
        interrupt_when_logged(run, 3)
        train_sft(broken, run)
    again, _ = run_to_end(broken)
    assert again == results
    assert_bit_identical(weights(tmp_path / "straight" / "model"), weights(tmp_path / "broken" / "model"))
    chats, text = json.loads((tmp_path / "straight" / "manifest.json").read_text())["sources"]
    assert 20 <= text["rows"] <= 28 and chats["rows"] == 48 - text["rows"]  # of the third epoch 8 rows of 20
    assert chats["share"] + text["share"] == pytest.approx(1)
    for source in (chats, text):
        assert (
            source["most"] <= math.ceil(source["epochs"]) + 1
        )  # in turn, but for where the last epoch stops
    assert text["supervised_tokens"] == text["tokens"] - text["rows"]
    assert [str(chats["rows"]), str(text["rows"])] == [
        line[1] for line in said if line and line[0].endswith(("chats.jsonl", "text.txt"))
    ]


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_interrupted_and_resumed_is_the_straight_run(
    tmp_path: Path, lora: dict[str, Any] | None, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"lora": lora, "rows_per_device": 4, "evaluate_every": 2}
    results, _ = run_to_end(recipe(tmp_path, "straight", **settings))
    broken = recipe(tmp_path, "broken", **settings)
    with pytest.raises(Interrupted, match="step 4 of 6"), open_run(broken) as run:
        interrupt_when_logged(run, 3)
        train_sft(broken, run)
    again, _ = run_to_end(broken)
    assert again == results
    assert_bit_identical(weights(tmp_path / "straight" / "model"), weights(tmp_path / "broken" / "model"))
    assert "Writing model shards" not in capfd.readouterr().err


def test_tasks_are_rendered_anew_each_epoch_and_resume_exactly(tmp_path: Path) -> None:
    """24 rows, 8 a step: three epochs and a bit; the interruption is in the second."""
    path = write_task(tmp_path / "tasks", rows=nli_rows(30))
    tasks = [{"path": path, "format": "tasks", "shots": [0, 2], "rationale": 0.2}]

    def asked(name: str) -> SftRecipe:
        whole = recipe(tmp_path, name, steps=10, checkpoint_every=2).model_dump()
        whole["data"] |= {"train": tasks, "holdout": {"rows": 6}}
        return SftRecipe.model_validate(whole)

    results, rows = run_to_end(asked("straight"))
    manifest = json.loads((tmp_path / "straight" / "manifest.json").read_text())
    (source,) = manifest["sources"]
    assert sum(source["templates"].values()) == 10 * 8 == sum(source["shots"].values()) == source["rows"]
    assert source["epochs"] == pytest.approx(80 / 24)
    with pytest.raises(Interrupted, match="step 6 of 10"), open_run(broken := asked("broken")) as run:
        interrupt_when_logged(run, 5)
        train_sft(broken, run)
    again, resumed = run_to_end(broken)
    assert again == results
    losses = [
        [row["train/loss_nats"] for row in told if "train/loss_nats" in row] for told in (rows, resumed)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 10
    assert_bit_identical(weights(tmp_path / "straight" / "model"), weights(tmp_path / "broken" / "model"))
