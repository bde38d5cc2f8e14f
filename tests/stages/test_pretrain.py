from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from aligner.data.packing import Block
from aligner.errors import DataError, Interrupted, TrainingError
from aligner.recipe.stages import PretrainRecipe
from aligner.stages.batches import BlockCollator, BlockSet
from aligner.stages.losses import next_token_nats
from aligner.stages.pretrain import PackedBlocks, block_trainer, train_pretrain
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


def recipe(
    folder: Path,
    name: str = "run",
    *,
    isolate: bool = False,
    curriculum: dict[str, Any] | None = None,
    **train: Any,
) -> PretrainRecipe:
    texts = folder / "texts.jsonl"
    if not texts.exists():
        chooser = random.Random(0)
        rows = [{"text": f"{number} " + " ".join(chooser.sample(SENTENCES, 3))} for number in range(160)]
        write_jsonl(texts, rows)
    data = {
        "train": [{"path": str(texts), "format": "documents"}],
        "curriculum": curriculum,
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


def early_texts(folder: Path, count: int, words: int = 100) -> dict[str, Any]:
    chooser = random.Random(3)
    rows = [{"text": " ".join(chooser.choice("zyxw") * 3 for _ in range(words))} for _ in range(count)]
    return {"sources": [{"path": str(write_jsonl(folder / f"early{count}.jsonl", rows))}], "until": 0.5}


def test_a_curriculum_is_read_early_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read: list[str] = []
    look = BlockCollator.__call__

    def noted(self: BlockCollator, rows: Any) -> Any:
        batch = look(self, rows)
        read.extend(tokenizer.decode(ids) for ids in batch["input_ids"])
        return batch

    run_to_end(recipe(tmp_path, "plain", steps=1))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain" / "model")
    monkeypatch.setattr(BlockCollator, "__call__", noted)
    asked = recipe(tmp_path, steps=20, curriculum=early_texts(tmp_path, 30))
    results, _ = run_to_end(asked)
    early = [number for number, text in enumerate(read) if any(letter * 3 in text for letter in "zyxw")]
    assert len(read) == 160 and early[-1] < 80
    assert len(early) == results["pretrain/curriculum_blocks"] == 40  # half of the first half of 160
    left_out = results["pretrain/curriculum_left_out_blocks"]
    assert left_out > 0 and f"40 of {40 + left_out:.0f} blocks are read" in capsys.readouterr().err
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "model").get_vocab() == tokenizer.get_vocab()
    (source,) = json.loads((tmp_path / "run" / "manifest.json").read_text())["data"]["curriculum"]
    assert source["rows_used"] == source["rows_read"] == 30


def test_a_curriculum_too_small_for_a_block_is_told(tmp_path: Path) -> None:
    asked = recipe(tmp_path, curriculum=early_texts(tmp_path, 1, words=6))
    with pytest.raises(DataError, match=r"data.curriculum: the documents do not fill one block of 32 tokens"):
        run_to_end(asked)


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
            found.append(
                first_gradients(
                    block_trainer(tiny_model(tokenizer), tokenizer, PackedBlocks(blocks, []), asked, run)
                )
            )
    assert_same_gradients(found[0], found[1])
    assert_same_gradients(found[0], found[2])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_interrupted_and_resumed_is_the_straight_run(tmp_path: Path, optimizer: str) -> None:
    settings = {
        "optimizer": optimizer,
        "rows_per_device": 4,
        "evaluate_every": 2,
        "curriculum": early_texts(tmp_path, 3),
    }
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
        trainer = block_trainer(model, tokenizer, PackedBlocks(blocks, []), asked, run)
        with torch.no_grad():
            model.get_input_embeddings().weight[7] = float("nan")
        with pytest.raises(TrainingError, match=r"loss of step 1 is nan"):
            trainer.train()
        assert not list(run.checkpoints.glob("step-*"))
