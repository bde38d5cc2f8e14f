from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from aligner.data.packing import Block
from aligner.errors import Interrupted, TrainingError
from aligner.recipe.stages import PretrainRecipe
from aligner.stages.batches import BlockCollator, BlockSet
from aligner.stages.losses import next_token_nats
from aligner.stages.pretrain import block_trainer, train_pretrain
from tests.stages.tools import (
    TRAIN,
    assert_bit_identical,
    assert_same_gradients,
    first_gradients,
    interrupt_when_logged,
    open_run,
    weights,
    write_jsonl,
)
from tests.tiny import SENTENCES, tiny_model, tiny_tokenizer

MODEL = {"hidden_size": 32, "layers": 2, "heads": 4, "intermediate_size": 64, "context_length": 64}


def recipe(folder: Path, name: str = "run", *, isolate: bool = False, **train: Any) -> PretrainRecipe:
    texts = folder / "texts.jsonl"
    if not texts.exists():
        chooser = random.Random(0)
        rows = [{"text": f"{number} " + " ".join(chooser.sample(SENTENCES, 3))} for number in range(160)]
        write_jsonl(texts, rows)
    data = {
        "train": [{"path": str(texts), "format": "documents"}],
        "holdout": {"rows": 10},
        "block_length": 32,
        "isolate_documents": isolate,
    }
    return PretrainRecipe.model_validate(
        {
            "stage": "pretrain",
            "output": str(folder / name),
            "model": MODEL,
            "data": data,
            "tokenizer": {"vocab_size": 384},
            "train": {**TRAIN, **train},
        }
    )


def run_to_end(asked: PretrainRecipe) -> tuple[dict[str, float], list[dict[str, Any]]]:
    with open_run(asked) as run:
        return train_pretrain(asked, run).results, run.metrics.rows()


def test_learns_and_says_how_well(tmp_path: Path) -> None:
    results, rows = run_to_end(
        recipe(tmp_path, steps=30, learning_rate=1e-2, schedule="cosine", warmup_share=0.1)
    )
    losses = [row["train/loss_nats"] for row in rows if "train/loss_nats" in row]
    assert losses[0] == pytest.approx(math.log(384), rel=0.1)
    assert losses[-1] < losses[0] - 1.5
    assert 0 < results["pretrain/holdout_bits_per_byte"] < 5
    assert rows[-1]["holdout/bits_per_byte"] == results["pretrain/holdout_bits_per_byte"]
    rates = [row["train/learning_rate"] for row in rows if "train/learning_rate" in row]
    by_hand = [
        min(step / 3, 0.5 * (1 + math.cos(math.pi * (step - 3) / 27)) if step > 3 else 1)
        for step in range(30)
    ]
    assert rates[1:] == pytest.approx([1e-2 * share for share in by_hand[1:]], rel=1e-6)


def test_loss_is_the_mean_over_predicted_tokens(tmp_path: Path) -> None:
    small = recipe(tmp_path, "one", steps=1, rows_per_step=4, learning_rate=1e-9).model_copy(
        update={"seed": 5}
    )
    _, rows = run_to_end(small)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from aligner.data.build import build_documents
    from aligner.data.packing import pack_documents

    asked = recipe(tmp_path)
    folder = tmp_path / "one" / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    blocks = pack_documents(
        build_documents(asked.data, seed=5).train, tokenizer, block_length=32, isolate=False
    )
    order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(5 * 1_000_003)).tolist()[:4]
    ids = torch.tensor([blocks[row].input_ids for row in order])
    by_hand = F.cross_entropy(model(input_ids=ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert rows[0]["train/loss_nats"] == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "qwen3"])
def test_isolated_documents_do_not_see_each_other(architecture: Any) -> None:
    model = tiny_model(architecture=architecture)
    chooser = random.Random(1)
    ids = [chooser.randrange(6, 380) for _ in range(20)]
    together = BlockSet([Block(ids, [0] * 7 + [1] * 13)])
    batch = BlockCollator(together, isolate=True)([0])
    nats = next_token_nats(model, model.get_output_embeddings(), batch)
    alone = [model(input_ids=torch.tensor([part])).logits[0, :-1] for part in (ids[:7], ids[7:])]
    by_hand = sum(
        F.cross_entropy(logits, torch.tensor(part[1:]), reduction="sum")
        for logits, part in zip(alone, (ids[:7], ids[7:]), strict=True)
    )
    assert nats.item() == pytest.approx(by_hand.item(), rel=1e-6)  # type: ignore[union-attr]
    mixed = next_token_nats(model, model.get_output_embeddings(), BlockCollator(together, isolate=False)([0]))
    assert abs(mixed.item() - nats.item()) > 1e-3


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    chooser = random.Random(2)
    blocks = []
    for _ in range(16):
        cuts = sorted(
            chooser.sample(range(1, 32), chooser.randrange(0, 6))
        )  # unequal counts of predicted tokens
        blocks.append(
            Block(
                [chooser.randrange(6, 380) for _ in range(32)], [sum(i >= c for c in cuts) for i in range(32)]
            )
        )
    found = []
    for per_device in (8, 2, 1):
        asked = recipe(tmp_path, f"by{per_device}", isolate=True, steps=1, rows_per_device=per_device)
        with open_run(asked) as run:
            found.append(first_gradients(block_trainer(tiny_model(tokenizer), tokenizer, blocks, asked, run)))
    assert_same_gradients(found[0], found[1])
    assert_same_gradients(found[0], found[2])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_interrupted_and_resumed_is_the_straight_run(tmp_path: Path, optimizer: str) -> None:
    settings = {"optimizer": optimizer, "rows_per_device": 4, "evaluate_every": 2}
    results, rows = run_to_end(recipe(tmp_path, "straight", **settings))
    broken = recipe(tmp_path, "broken", **settings)
    with pytest.raises(Interrupted, match="step 3 of 6"), open_run(broken) as run:
        interrupt_when_logged(run, 2)
        train_pretrain(broken, run)
    again_results, again_rows = run_to_end(broken)
    assert again_results == results
    assert_bit_identical(weights(tmp_path / "straight" / "model"), weights(tmp_path / "broken" / "model"))
    timeless = [
        [{key: value for key, value in row.items() if "second" not in key} for row in one]
        for one in (rows, again_rows)
    ]
    assert timeless[0] == timeless[1]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    asked = recipe(tmp_path, steps=4, checkpoint_every=1)
    model = tiny_model(tokenizer)
    blocks = [Block(list(range(6, 38)), [0] * 32)] * 8
    with open_run(asked) as run:
        trainer = block_trainer(model, tokenizer, blocks, asked, run)
        with torch.no_grad():
            model.get_input_embeddings().weight[7] = float("nan")
        with pytest.raises(TrainingError, match=r"loss of step 1 is nan"):
            trainer.train()
        assert not list(run.checkpoints.glob("checkpoint-*"))
