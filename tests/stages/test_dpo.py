"""DPO on a tiny real model: equal to TRL's trainer, loss by loss; it stops and goes on bit by bit; it learns."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import Sampler
from trl import DPOConfig, DPOTrainer

from aligner.data.tokens import PairRow
from aligner.errors import DataError, Interrupted
from aligner.models.load import LoadedModel, load_trained
from aligner.recipe.preference import DpoRecipe
from aligner.stages.order import FixedOrder
from aligner.stages.preference import preference_trainer, reference_nats, train_preference
from aligner.stages.preference_losses import preference_loss
from aligner.stages.stage import training_arguments
from tests.models.test_scoring import answer_nats
from tests.stages import test_reward
from tests.stages.tools import assert_bit_identical, interrupt_when_logged, open_run, weights, write_jsonl
from tests.tiny import tiny_model, tiny_tokenizer

LORA = {"rank": 4, "alpha": 8, "dropout": 0.2}


def recipe(
    folder: Path, name: str = "run", *, lora: dict[str, Any] | None = None, watch: bool = False, **more: Any
) -> DpoRecipe:
    """The reward tests' pairs and base."""
    values = test_reward.recipe(folder, name, lora=lora).model_dump()
    dpo = {key: more.pop(key) for key in ("loss", "beta", "nll_coef") if key in more}
    prompts = write_jsonl(
        folder / "held.jsonl",
        [
            {"id": str(n), "prompt": f"Say {n}?", "gold": {"kind": "answerable", "answers": ["red"]}}
            for n in range(6)
        ],
    )
    held = {"holdout": [{"path": str(prompts), "format": "prompts"}], "holdout_rows": 4}
    return DpoRecipe.model_validate(
        {
            "stage": "dpo",
            **{key: values[key] for key in ("output", "model", "data", "sampling")},
            "reward": [{"function": "tests.rl.planted:vowels"}] if watch else [],
            "train": {**values["train"], **more},
            "watch": held if watch else {},
            "dpo": dpo,
        }
    )


def run_to_end(asked: DpoRecipe) -> tuple[dict[str, float], list[dict[str, Any]]]:
    with open_run(asked) as run:
        return train_preference(asked, run).results, run.metrics.rows()


class TrlAsItComes(DPOTrainer):
    """TRL's own loss; the order of the pairs is ours, and rows come ready."""

    order: list[int]

    def _prepare_dataset(self, dataset: Dataset, *_args: Any, **_kwargs: Any) -> Dataset:
        return dataset

    def _get_train_sampler(self, train_dataset: object = None) -> Sampler[int]:
        return FixedOrder(self.order)


def short_pairs(*, count: int) -> list[PairRow]:
    """One token of prompt, answers of 2 to 7: float32 keeps their log-probabilities to 1e-6 nats."""
    return [
        replace(
            pair, rejected_ids=[pair.chosen_ids[0], *pair.rejected_ids[1:8]], chosen_ids=pair.chosen_ids[:8]
        )
        for pair in test_reward.some_pairs(count=count)
    ]


@pytest.mark.parametrize(
    ("loss", "lora"), [("sigmoid", False), ("sigmoid", True), ("hinge", False), ("ipo", False)]
)
def test_twenty_steps_are_those_of_trl(tmp_path: Path, loss: Any, lora: bool) -> None:
    tokenizer = tiny_tokenizer()
    start = tiny_model(tokenizer)
    if lora:
        torch.manual_seed(0)
        start = get_peft_model(start, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    pairs = short_pairs(count=200)
    shared = {"loss": loss, "beta": 0.1, "learning_rate": 3e-3, "log_every": 1}
    asked = recipe(tmp_path, steps=20, rows_per_step=8, **shared)
    theirs_model = copy.deepcopy(start)
    with open_run(asked) as run:
        ours = preference_trainer(LoadedModel(start, tokenizer, ""), pairs, asked, run)
        ours.train()
        args = training_arguments(asked.train, run, rows=len(pairs), seed=0, kind=DPOConfig)
        args.beta, args.loss_type, args.max_length = 0.1, [loss], None
        rows = [
            {
                "prompt_ids": pair.chosen_ids[:1],
                "chosen_ids": pair.chosen_ids[1:],
                "rejected_ids": pair.rejected_ids[1:],
            }
            for pair in pairs
        ]
        theirs = TrlAsItComes(
            model=theirs_model,
            ref_model=None if lora else copy.deepcopy(theirs_model),
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        theirs.order = ours.rows_read
        theirs.train()
    losses = [
        [row["loss"] for row in trainer.state.log_history if "loss" in row] for trainer in (ours, theirs)
    ]
    assert len(losses[0]) == 20 and losses[0] == pytest.approx(losses[1], rel=1e-6, abs=1e-9)
    trained = dict(theirs_model.named_parameters())  # with an adapter, TRL's reference is another one in it
    assert all(torch.allclose(one, trained[name], atol=1e-5) for name, one in start.named_parameters())


def test_losses_by_hand() -> None:
    ratios_4, tokens_4 = torch.tensor([2.0, 0.0, 0.0, 1.0]), torch.tensor([4, 2, 1, 2])

    def loss(kind: Any, **more: Any) -> float:
        return float(preference_loss(ratios_4, tokens_4, loss=kind, beta=0.5, **more))

    # gaps beta x (2 - 0) = 1 and beta x (0 - 1) = -.5; per token (.5 - 0) and (0 - .5); 1 / 2 beta = 1
    assert loss("sigmoid") == pytest.approx(math.log1p(math.exp(-1)) + math.log1p(math.exp(0.5)))
    assert loss("hinge") == pytest.approx(0 + 1.5)
    assert loss("ipo") == pytest.approx(0.5**2 + 1.5**2)
    margin_2, weight_2 = torch.tensor([1.0, 0.5]), torch.tensor([0.5, 1.5])
    assert loss("hinge", margin_B=margin_2, weight_B=weight_2) == pytest.approx(0.5 * 1 + 1.5 * 2)
    assert loss("ipo", weight_B=weight_2) == pytest.approx(0.5 * 0.25 + 1.5 * 2.25)


def test_the_first_loss_is_log_2_and_the_reference_is_the_start_model(tmp_path: Path) -> None:
    asked = recipe(tmp_path, lora=LORA, watch=True, learning_rate=1e-12)
    _, rows = run_to_end(asked)
    losses = [row["dpo/loss"] for row in rows if "dpo/loss" in row]
    assert losses == pytest.approx([math.log(2)] * 6, abs=1e-6)
    start = next(row for row in rows if row["step"] == 0)
    assert abs(start["kl/holdout_ref_nats_per_response"]) < 1e-5 and start["holdout/margin_mean"] == 0
    assert start["holdout/accuracy_share"] == 0.5  # ties


def test_reference_nats_are_those_of_the_answers_alone(tmp_path: Path) -> None:
    asked = recipe(tmp_path)
    tokenizer = tiny_tokenizer()
    loaded = LoadedModel(tiny_model(tokenizer), tokenizer, "")
    pairs = test_reward.some_pairs(count=5)
    found = reference_nats(loaded, pairs, asked.train)
    wanted = [
        [answer_nats(loaded.model, ids, pair.prompt_length) for ids in (pair.chosen_ids, pair.rejected_ids)]
        for pair in pairs
    ]
    assert torch.allclose(found, torch.tensor(wanted), atol=1e-4)


@pytest.mark.parametrize("lora", [None, LORA])
def test_it_learns_and_leaves_a_whole_run(tmp_path: Path, lora: Any) -> None:
    asked = recipe(tmp_path, lora=lora, watch=True, steps=30, learning_rate=1e-2, evaluate_every=15)
    results, rows = run_to_end(asked)
    assert results["dpo/accuracy_share"] > 0.9 and results["dpo/accuracy_share[tone]"] > 0.8
    assert results["kl/holdout_ref_nats_per_response"] > 0.1
    assert {"dpo/holdout_proxy_reward", "dpo/holdout_gold_reward", "dpo/holdout_gold_reward[start]"} <= set(
        results
    )
    looks = [row["step"] for row in rows if "dpo/holdout_proxy_reward" in row]
    assert looks == [0, 15, 30]
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert [row["step"] for row in samples] == [0] * 4 + [15] * 4 + [30] * 4
    model = load_trained(tmp_path / "run").model
    assert isinstance(model, PeftModel) == (lora is not None)
    report = json.loads((tmp_path / "run" / "manifest.json").read_text())["data"]
    assert set(report) == {"pairs", "watch"}


def test_an_interrupted_run_goes_on_bit_by_bit(tmp_path: Path) -> None:
    more: dict[str, Any] = {"lora": LORA, "watch": True, "evaluate_every": 2, "nll_coef": 0.1}
    straight = recipe(tmp_path, "straight", **more)
    run_to_end(straight)
    broken = recipe(tmp_path, "broken", **more)
    with open_run(broken) as run, pytest.raises(Interrupted):
        interrupt_when_logged(run, 3)
        train_preference(broken, run)
    run_to_end(broken)
    assert_bit_identical(weights(tmp_path / "straight" / "model"), weights(tmp_path / "broken" / "model"))
    for name in ("metrics.jsonl", "samples.jsonl"):
        one, other = (lines(tmp_path / run / name) for run in ("straight", "broken"))
        assert one == other


def lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a file but for what the clock said."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "train/tokens_per_second")} for row in rows]


def test_a_step_in_parts_is_the_step(tmp_path: Path) -> None:
    for name, per_device in (("whole", 8), ("parts", 2)):
        run_to_end(recipe(tmp_path, name, nll_coef=0.1, rows_per_device=per_device, steps=3))
    one, other = (weights(tmp_path / name / "model") for name in ("whole", "parts"))
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_ipo_says_that_it_has_no_place_for_margins(tmp_path: Path) -> None:
    asked = recipe(tmp_path, loss="ipo")
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    write_jsonl(tmp_path / "pairs.jsonl", [{**row, "margin": 1.0} for row in rows])
    with open_run(asked) as run, pytest.raises(DataError, match="ipo has no place for the margins of 80"):
        train_preference(asked, run)
