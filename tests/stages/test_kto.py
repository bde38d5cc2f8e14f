"""KTO on a tiny real model: equal to TRL's trainer; it stops and goes on bit by bit; it learns."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.utils.data import Sampler
from trl import KTOConfig, KTOTrainer

from aligner.data.tokens import PairRow
from aligner.errors import DataError, Interrupted
from aligner.models.load import LoadedModel
from aligner.recipe.preference import KtoRecipe
from aligner.recipe.stages import RECIPES
from aligner.stages.order import FixedOrder
from aligner.stages.preference import places_before, preference_trainer, train_preference, with_answers
from aligner.stages.preference_losses import kto_loss
from aligner.stages.stage import training_arguments
from tests.stages import test_dpo
from tests.stages.test_dpo import LORA, lines, short_pairs
from tests.stages.tools import assert_bit_identical, interrupt_when_logged, open_run, weights, write_jsonl
from tests.tiny import tiny_model, tiny_tokenizer

STEPS, PAIRS = 20, 4  # pairs a step, as 8 answers


def recipe(folder: Path, name: str = "run", *, kto: Any = None, **more: Any) -> KtoRecipe:
    """DPO's recipe with one word changed."""
    values = test_dpo.recipe(folder, name, **more).model_dump()
    values.pop("dpo")
    found = RECIPES["kto"].model_validate({**values, "stage": "kto", "kto": kto or {}})
    assert isinstance(found, KtoRecipe)
    return found


def run_to_end(asked: KtoRecipe) -> tuple[dict[str, float], list[dict[str, Any]]]:
    with open_run(asked) as run:
        return train_preference(asked, run).results, run.metrics.rows()


class TrlAsItComes(KTOTrainer):
    """TRL's own loss; the order of the answers is ours, and rows come ready."""

    def _prepare_dataset(self, dataset: Dataset, *_args: Any, **_kwargs: Any) -> Dataset:
        return dataset

    def _get_train_sampler(self, train_dataset: object = None) -> Sampler[int]:
        return FixedOrder(list(range(2 * PAIRS * STEPS)))


def trl_rows(pairs: list[PairRow]) -> list[dict[str, Any]]:
    """Single answers in the order our batches have them, the chosen ones of a step first, with our mismatched ones."""
    others = places_before(len(pairs), PAIRS)
    rows = []
    for start in range(0, len(pairs), PAIRS):
        for label in (True, False):
            for place in range(start, start + PAIRS):
                sides = [pair.chosen_ids if label else pair.rejected_ids for pair in pairs]
                rows.append(
                    {
                        "prompt_ids": sides[place][:1],
                        "completion_ids": sides[place][1:],
                        "KL_completion_ids": sides[others[place]][1:],
                        "label": label,
                    }
                )
    return rows


@pytest.mark.parametrize("loss", ["kto", "apo_zero"])
def test_twenty_steps_are_those_of_trl(tmp_path: Path, loss: str) -> None:
    tokenizer = tiny_tokenizer()
    start, pairs = tiny_model(tokenizer), short_pairs(count=100)
    theirs_model = copy.deepcopy(start)
    numbers = {"loss": loss, "beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.8}
    shared = {"steps": STEPS, "rows_per_step": PAIRS, "learning_rate": 3e-3}
    asked = recipe(tmp_path, kto=numbers, **shared)
    with open_run(asked) as run:
        ours = preference_trainer(LoadedModel(start, tokenizer, ""), pairs, asked, run)
        ours.train()
        args = training_arguments(asked.train, run, rows=len(pairs), seed=0, kind=KTOConfig)
        args.per_device_train_batch_size, args.train_sampling_strategy = 2 * PAIRS, "sequential"
        args.beta, args.loss_type = 0.3, "kto" if loss == "kto" else "apo_zero_unpaired"
        args.desirable_weight, args.undesirable_weight, args.max_length = 1.2, 0.8, None
        theirs = TrlAsItComes(
            model=theirs_model,
            ref_model=copy.deepcopy(theirs_model),
            args=args,
            train_dataset=Dataset.from_list(trl_rows([pairs[i] for i in ours.rows_read])),
            processing_class=tokenizer,
        )
        theirs.train()
    losses = [
        [row["loss"] for row in trainer.state.log_history if "loss" in row] for trainer in (ours, theirs)
    ]
    assert len(losses[0]) == STEPS and losses[0] == pytest.approx(losses[1], rel=1e-6)
    if loss == "kto":
        kls = [row["kl"] for row in theirs.state.log_history if "kl" in row]
        assert max(kls) > 0.01  # the mismatched answers had their say
    trained = dict(theirs_model.named_parameters())
    assert all(torch.allclose(one, trained[name], atol=1e-5) for name, one in start.named_parameters())


def test_losses_by_hand() -> None:
    ratios_2 = torch.tensor([2.0, -1.0])
    found = kto_loss(ratios_2, 1.0, loss="kto", beta=0.5, desirable_weight=2.0, undesirable_weight=3.0)
    # beta x (2 - 1) = .5 and beta x (-1 - 1) = -1
    assert float(found) == pytest.approx(2 / (1 + math.exp(0.5)) + 3 / (1 + math.exp(1.0)))
    found = kto_loss(ratios_2, 1.0, loss="apo_zero", beta=0.5, weight_B=torch.tensor([0.5]))
    assert float(found) == pytest.approx(0.5 / (1 + math.exp(1.0)) + 0.5 / (1 + math.exp(0.5)))


def test_other_answers_are_of_another_pair_of_the_step() -> None:
    assert places_before(6, 3) == [2, 0, 1, 5, 3, 4]
    one = PairRow([1, 2, 3], [1, 2, 4, 5], None, "a", 2)
    two = PairRow([1, 7, 8, 9], [1, 7, 6], None, "b", 1)
    made = with_answers(one, two, 4)
    assert (made.chosen_ids, made.rejected_ids, made.prompt_length) == ([1, 2, 7, 8], [1, 2, 7, 6], 2)


@pytest.mark.parametrize("lora", [None, LORA])
def test_it_learns_and_leaves_a_whole_run(tmp_path: Path, lora: Any) -> None:
    asked = recipe(tmp_path, lora=lora, watch=True, steps=40, learning_rate=1e-2, evaluate_every=20)
    results, rows = run_to_end(asked)
    assert results["kto/accuracy_share"] > 0.9 and results["kl/holdout_ref_nats_per_response"] > 0.1
    assert "kto/holdout_gold_reward[start]" in results
    assert [row["step"] for row in rows if "kto/holdout_proxy_reward" in row] == [0, 20, 40]
    losses = [row["kto/loss"] for row in rows if "kto/loss" in row]
    assert losses[0] == pytest.approx(0.5, abs=1e-5) and losses[-1] < 0.45
    assert all(row["kto/kl_nats"] >= 0 for row in rows if "kto/kl_nats" in row)


def test_an_interrupted_run_goes_on_bit_by_bit(tmp_path: Path) -> None:
    run_to_end(recipe(tmp_path, "straight", lora=LORA))
    broken = recipe(tmp_path, "broken", lora=LORA)
    with open_run(broken) as run, pytest.raises(Interrupted):
        interrupt_when_logged(run, 3)
        train_preference(broken, run)
    run_to_end(broken)
    one, other = (weights(tmp_path / name / "model") for name in ("straight", "broken"))
    assert_bit_identical(one, other)
    assert lines(tmp_path / "straight" / "metrics.jsonl") == lines(tmp_path / "broken" / "metrics.jsonl")


def test_a_step_in_parts_is_the_step(tmp_path: Path) -> None:
    for name, per_device in (("whole", 8), ("parts", 2)):
        run_to_end(recipe(tmp_path, name, rows_per_device=per_device, steps=3))
    one, other = (weights(tmp_path / name / "model") for name in ("whole", "parts"))
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_margins_have_no_place_here(tmp_path: Path) -> None:
    asked = recipe(tmp_path)
    rows = [{"prompt": f"Say {n}.", "chosen": "a", "rejected": "b", "margin": 1.0} for n in range(60)]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    with open_run(asked) as run, pytest.raises(DataError, match="kto has no place for the margins of 20"):
        train_preference(asked, run)
