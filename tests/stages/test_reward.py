from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel
from torch.nn import functional as F
from torch.utils.data import Sampler
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from aligner.data.tokens import PairRow
from aligner.errors import Interrupted, ModelError, TrainingError
from aligner.models.heads import RewardModel
from aligner.models.load import LoadedModel, load_model
from aligner.models.scoring import Scoring, pooled_scores
from aligner.recipe.stages import RewardRecipe
from aligner.stages.batches import PairCollator
from aligner.stages.losses import bradley_terry_nats
from aligner.stages.order import FixedOrder
from aligner.stages.pairs import WeighedColumns, columns, holdout_results
from aligner.stages.reward import (
    Answers,
    check_reload,
    pair_trainer,
    scale_samples,
    train_reward,
)
from aligner.stages.stage import training_arguments
from tests.models.test_scoring import answer_nats
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
from tests.tiny import tiny_tokenizer

LORA = {"rank": 4, "alpha": 8, "dropout": 0.2}
GOOD, BAD = ("nice", "happy", "red"), ("dog", "ball", "pear")


def recipe(
    folder: Path,
    name: str = "run",
    *,
    lora: dict[str, Any] | None = None,
    score: str = "head",
    **train: Any,
) -> RewardRecipe:
    pairs, prompts, base = folder / "pairs.jsonl", folder / "prompts.jsonl", folder / "tiny"
    if not base.exists():
        save_tiny(base, tiny_tokenizer())
    if not pairs.exists():
        chooser = random.Random(0)
        rows = []
        for number in range(120):
            shared = chooser.sample(("cat", "town", "story", "house", "fig"), 2)
            chosen = chooser.sample([chooser.choice(GOOD), *shared], 3)
            rejected = chooser.sample([chooser.choice(BAD), *shared], 3)
            row = {"prompt": f"Say {number}.", "chosen": " ".join(chosen), "rejected": " ".join(rejected)}
            rows.append({**row, "kind": ("tone", "truth")[number % 2]})
        write_jsonl(pairs, rows)
        write_jsonl(prompts, [{"id": str(n), "prompt": f"Say {n}."} for n in range(12)])
    return RewardRecipe.model_validate(
        {
            "stage": "reward",
            "output": str(folder / name),
            "model": {"base": str(base), "lora": lora},
            "data": {
                "train": [{"path": str(pairs), "format": "pairs"}],
                "holdout": {"rows": 40},
                "max_length": 64,
            },
            "score": score,
            "beta": 0.5 if score == "likelihood" else 1.0,
            "normalise_on": [{"path": str(prompts), "format": "prompts"}],
            "normalise_rows": 10,
            "sampling": {"max_new_tokens": 8},
            "train": {**TRAIN, **train},
        }
    )


def run_to_end(asked: RewardRecipe) -> tuple[dict[str, float], list[dict[str, Any]]]:
    with open_run(asked) as run:
        return train_reward(asked, run).results, run.metrics.rows()


def test_a_mixture_of_pairs_has_epochs_of_its_own_length(tmp_path: Path) -> None:
    asked = recipe(tmp_path, steps=None, epochs=3, rows_per_step=8)
    data = asked.data.model_dump() | {"mixture": {"rows": 16}}
    mixed = RewardRecipe.model_validate(asked.model_dump() | {"data": data})
    with open_run(mixed) as run:
        train_reward(mixed, run)
        steps = [row["step"] for row in run.metrics.rows()]
    (source,) = json.loads((tmp_path / "run" / "manifest.json").read_text())["sources"]
    assert steps[-1] == 6 and (source["rows"], source["most"], source["epochs"]) == (48, 1, 48 / 80)


def some_pairs(*, count: int, margins: bool = False, seed: int = 0) -> list[PairRow]:
    """Random ids of unequal lengths; the last id is never the pad token's (0)."""
    chooser = random.Random(seed)

    def ids() -> list[int]:
        return [chooser.randrange(6, 380) for _ in range(chooser.randrange(3, 20))]

    return [PairRow(ids(), ids(), chooser.uniform(0, 2) if margins else None, "", 1) for _ in range(count)]


def fresh_scorer(folder: Path) -> LoadedModel:
    if not (folder / "tiny").exists():
        save_tiny(folder / "tiny", tiny_tokenizer())
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder / "tiny", num_labels=1)
    torch.nn.init.normal_(model.score.weight, std=0.5)
    return LoadedModel(model=model, tokenizer=tiny_tokenizer(), identity="")


class TrlAsItComes(RewardTrainer):
    """TRL's own loss; only the order of the pairs is ours."""

    order: list[int]

    def _get_train_sampler(self, train_dataset: object = None) -> Sampler[int]:
        return FixedOrder(self.order)


@pytest.mark.parametrize("margins", [False, True], ids=["plain", "margins"])
def test_losses_are_those_of_trl(tmp_path: Path, margins: bool) -> None:
    pairs = some_pairs(count=24, margins=margins)
    asked = recipe(tmp_path, "ours", steps=10, rows_per_step=8, rows_per_device=4, learning_rate=1e-3)
    with open_run(asked) as run:
        ours = pair_trainer(fresh_scorer(tmp_path), pairs, Scoring(), asked.train, run, seed=0)
        ours.train()
    with open_run(recipe(tmp_path, "theirs")) as run:
        args = training_arguments(asked.train, run, rows=len(pairs), seed=0, kind=RewardConfig)
        args.max_length = None
        data = Dataset.from_list([columns(pair, with_margin=margins) for pair in pairs])
        model = fresh_scorer(tmp_path).model
        theirs = TrlAsItComes(model=model, args=args, train_dataset=data, processing_class=tiny_tokenizer())
        theirs.order = ours.plan.order
        theirs.train()
    losses = [
        [line["loss"] for line in trainer.state.log_history if "loss" in line] for trainer in (ours, theirs)
    ]
    assert len(losses[0]) == 10
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_scores_are_read_where_the_mask_ends(tmp_path: Path) -> None:
    model = fresh_scorer(tmp_path).model.eval()
    rows = [
        [9, 8, 7],
        [9, 8, 7, 0, 0],
        [5, 4, 2, 6, 2, 2, 0],
    ]  # pad and end tokens' ids inside and at the end
    pairs = [PairRow(rows[0], rows[1], None, "", 1), PairRow(rows[2], rows[0], None, "", 1)]
    alone = [
        model.score(model.model(input_ids=torch.tensor([row])).last_hidden_state)[0, -1, 0] for row in rows
    ]
    by_hand = torch.stack([alone[0], alone[2], alone[1], alone[0]])
    for pad_id in (0, 2, 377):
        batch = PairCollator(pad_id)([columns(pair, with_margin=False) for pair in pairs])
        scores = pooled_scores(model, batch["input_ids"], batch["attention_mask"])
        torch.testing.assert_close(scores, by_hand, rtol=1e-5, atol=1e-6)


def test_bradley_terry_by_hand() -> None:
    chosen, rejected = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 2.0])
    assert bradley_terry_nats(chosen, rejected).item() == pytest.approx(0.693147 + 2.126928, rel=1e-6)
    margin = torch.tensor([0.0, 1.0])
    assert bradley_terry_nats(chosen, rejected, margin).item() == pytest.approx(0.693147 + 3.048587, rel=1e-6)


def weighed(pairs: list[PairRow]) -> list[PairRow]:
    """The pairs as two rankings of three answers and single pairs."""
    return [replace(pair, weight=1 / 3 if i < 6 else 1.0) for i, pair in enumerate(pairs)]


@pytest.mark.parametrize("nll_coef", [0.0, 0.3])
def test_a_weighed_step_is_the_mean_over_its_prompts(tmp_path: Path, nll_coef: float) -> None:
    """Three pairs of one prompt and one of another: ((l1 + l2 + l3) / 3 + l4) / 2, by hand."""
    pairs = some_pairs(count=4)
    start = plain_language_model(save_tiny(tmp_path / "tiny", tiny_tokenizer()))
    with torch.no_grad():
        chosen, rejected = (
            torch.tensor([float(answer_nats(start, ids, 1)) for ids in side])
            for side in zip(*((pair.chosen_ids, pair.rejected_ids) for pair in pairs), strict=True)
        )
    nats = -F.logsigmoid(0.02 * (chosen - rejected)) - nll_coef * chosen
    wanted = ((nats[0] + nats[1] + nats[2]) / 3 + nats[3]) / 2
    asked = recipe(tmp_path, score="likelihood", steps=1, rows_per_step=4)
    given = [replace(pair, weight=weight) for pair, weight in zip(pairs, [1 / 3] * 3 + [1.0], strict=True)]
    with open_run(asked) as run:
        scoring = Scoring("likelihood", 0.02)
        trainer = pair_trainer(
            load_model(asked.model), given, scoring, asked.train, run, seed=0, nll_coef=nll_coef
        )
        trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(float(wanted), rel=1e-5)


def test_weights_stand_in_the_batch_only_where_they_differ() -> None:
    pairs = some_pairs(count=4)
    for weight in (1.0, 0.25):
        rows = WeighedColumns([replace(pair, weight=weight) for pair in pairs])
        assert list(rows) == [columns(pair, with_margin=False) for pair in pairs]
    rows = WeighedColumns([replace(pair, weight=1 / (1 + i)) for i, pair in enumerate(pairs)])
    # 1, 1/2, 1/3, 1/4 over their mean 25/48
    assert [row["weight"] for row in rows] == pytest.approx([1.92, 0.96, 0.64, 0.48])
    torch.testing.assert_close(PairCollator(0)(rows)["weight"], torch.tensor([1.92, 0.96, 0.64, 0.48]))


def test_prompts_of_one_pair_train_bit_by_bit_the_same_by_either_weighing(tmp_path: Path) -> None:
    asked = recipe(tmp_path, "pairs", steps=3)
    results, _ = run_to_end(asked)
    rules = asked.data.pairs.model_copy(update={"weigh": "prompt"})
    data = asked.data.model_copy(update={"pairs": rules})
    output = str(tmp_path / "prompts")
    again, _ = run_to_end(asked.model_copy(update={"data": data, "output": output}))
    assert again == results
    assert_bit_identical(weights(tmp_path / "pairs" / "model"), weights(tmp_path / "prompts" / "model"))


@pytest.mark.parametrize("share", [False, True], ids=["plain", "weighed"])
def test_micro_batches_change_nothing(tmp_path: Path, share: bool) -> None:
    pairs, found = some_pairs(count=8, margins=True), []
    pairs = weighed(pairs) if share else pairs
    for per_device in (8, 2, 1):
        asked = recipe(tmp_path, f"by{per_device}", steps=1, rows_per_device=per_device)
        with open_run(asked) as run:
            found.append(
                first_gradients(
                    pair_trainer(fresh_scorer(tmp_path), pairs, Scoring(), asked.train, run, seed=0)
                )
            )
    assert_same_gradients(found[0], found[1])
    assert_same_gradients(found[0], found[2])


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_learns_a_planted_preference(tmp_path: Path, lora: dict[str, Any] | None) -> None:
    results, rows = run_to_end(recipe(tmp_path, lora=lora, steps=30, learning_rate=2e-2, evaluate_every=15))
    assert results["reward/accuracy_share"] > 0.9
    assert {"reward/accuracy_share[tone]", "reward/accuracy_low_share[truth]"} <= results.keys()
    assert (
        results["reward/accuracy_low_share"]
        < results["reward/accuracy_share"]
        <= results["reward/accuracy_high_share"]
    )
    assert 0 <= results["reward/calibration_error_share"] < 0.5
    losses = [row["reward/loss_nats"] for row in rows if "reward/loss_nats" in row]
    assert losses[0] == pytest.approx(0.693, abs=0.2)
    assert losses[-1] < 0.5
    assert all(0 <= row["reward/accuracy_share"] <= 1 for row in rows if "reward/loss_nats" in row)
    saved = RewardModel.from_folder(tmp_path / "run")
    assert (saved.mean, saved.std) == (results["reward/reward_mean"], results["reward/reward_std"])
    assert saved.stats is not None
    assert saved.stats.rows == 10


def plain_language_model(folder: Path) -> torch.nn.Module:
    """With transformers and PEFT alone."""
    if not (folder / "adapter_config.json").exists():
        return AutoModelForCausalLM.from_pretrained(folder).eval()
    base = PeftConfig.from_pretrained(folder).base_model_name_or_path
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_likelihood_learns_a_planted_preference(tmp_path: Path, lora: dict[str, Any] | None) -> None:
    asked = recipe(tmp_path, lora=lora, score="likelihood", steps=30, learning_rate=1e-2, evaluate_every=15)
    results, rows = run_to_end(asked)
    assert results["reward/accuracy_share"] > 0.9
    losses = [row["reward/loss_nats"] for row in rows if "reward/loss_nats" in row]
    assert len(losses) == 30 and losses[-1] < 0.5 < losses[0]

    plain, samples = plain_language_model(tmp_path / "run" / "model"), scale_samples(asked, [])
    assert len(samples.sequences) == 10
    with torch.no_grad():
        nats = [
            answer_nats(plain, ids, length)
            for ids, length in zip(samples.sequences, samples.prompt_lengths, strict=True)
        ]
    scores = 0.5 * torch.stack(nats)
    saved = RewardModel.from_folder(tmp_path / "run")
    assert saved.scoring == Scoring("likelihood", 0.5)
    torch.testing.assert_close(
        saved.score(samples.sequences, samples.prompt_lengths), scores, atol=1e-4, rtol=1e-5
    )
    assert (saved.mean, saved.std) == (results["reward/reward_mean"], results["reward/reward_std"])
    assert saved.mean == pytest.approx(scores.mean().item(), rel=1e-4)
    assert saved.std == pytest.approx(scores.std().item(), rel=1e-4)


def test_without_prompts_the_scale_is_that_of_both_answers_of_the_pairs(tmp_path: Path) -> None:
    asked = recipe(tmp_path, score="likelihood").model_copy(update={"normalise_on": []})
    pairs = [PairRow([5, 6, 7], [5, 8], None, "", 1), PairRow([1, 2, 3, 4], [1, 2, 9], None, "", 2)]
    samples = scale_samples(asked, pairs)
    assert samples == Answers([[5, 6, 7], [5, 8], [1, 2, 3, 4], [1, 2, 9]], [1, 1, 2, 2])


@pytest.mark.parametrize("nll_coef", [0.0, 0.3])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_likelihood_losses_are_bradley_terry_on_the_log_likelihoods(
    tmp_path: Path, lora: dict[str, Any] | None, nll_coef: float
) -> None:
    """The first step's loss by hand; with LoRA too, for which dropout has to be off."""
    pairs = some_pairs(count=8, margins=True)
    asked = recipe(tmp_path, lora=lora, score="likelihood", steps=1)
    start = plain_language_model(tmp_path / "tiny")
    with torch.no_grad():
        wanted = [
            -F.logsigmoid(
                0.02 * (answer_nats(start, pair.chosen_ids, 1) - answer_nats(start, pair.rejected_ids, 1))
                - (pair.margin or 0.0)
            ).item()
            - nll_coef * float(answer_nats(start, pair.chosen_ids, 1))
            for pair in pairs
        ]
    with open_run(asked) as run:
        loaded = load_model(asked.model)
        scoring = Scoring("likelihood", 0.02)
        trainer = pair_trainer(loaded, pairs, scoring, asked.train, run, seed=0, nll_coef=nll_coef)
        trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(sum(wanted) / 8, rel=1e-5)
    dropouts = [module.p for module in loaded.model.modules() if isinstance(module, torch.nn.Dropout)]
    assert bool(dropouts) == bool(lora) and not any(dropouts)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_micro_batches_change_nothing_of_a_likelihood(tmp_path: Path, lora: dict[str, Any] | None) -> None:
    pairs, found = some_pairs(count=8, margins=True), []
    for per_device in (8, 2, 1):
        asked = recipe(tmp_path, f"by{per_device}", lora=lora, steps=1, rows_per_device=per_device)
        torch.manual_seed(0)
        loaded = load_model(asked.model)
        with open_run(asked) as run:
            trainer = pair_trainer(loaded, pairs, Scoring("likelihood", 0.1), asked.train, run, seed=0)
            found.append(first_gradients(trainer))
    assert_same_gradients(found[0], found[1])
    assert_same_gradients(found[0], found[2])


@pytest.mark.parametrize("score", ["head", "likelihood"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_interrupted_and_resumed_is_the_straight_run(
    tmp_path: Path, lora: dict[str, Any] | None, score: str
) -> None:
    settings = {"lora": lora, "score": score, "rows_per_device": 4, "evaluate_every": 2}
    results, _ = run_to_end(recipe(tmp_path, "straight", **settings))
    broken = recipe(tmp_path, "broken", **settings)
    with pytest.raises(Interrupted, match="step 3 of 6"), open_run(broken) as run:
        interrupt_when_logged(run, 2)
        train_reward(broken, run)
    again, _ = run_to_end(broken)
    assert again == results
    assert_bit_identical(weights(tmp_path / "straight" / "model"), weights(tmp_path / "broken" / "model"))


def test_a_model_that_does_not_load_as_it_was_is_told(tmp_path: Path) -> None:
    asked = recipe(tmp_path, steps=1)
    with open_run(asked) as run:
        train_reward(asked, run)
        rows = Answers([[5, 6, 7], [8, 9]], [2, 1])
        scores = RewardModel.from_folder(run.model_dir).score(rows.sequences, rows.prompt_lengths)
        check_reload(run, rows, scores)
        with pytest.raises(TrainingError, match="scores the same rows differently"):
            check_reload(run, rows, scores + torch.tensor([0.0, 1e-3]))


def test_a_scale_that_cannot_be_sampled_is_told_before_training(tmp_path: Path) -> None:
    asked = recipe(tmp_path, steps=1)
    asked = asked.model_copy(update={"sampling": asked.sampling.model_copy(update={"max_new_tokens": 512})})
    with open_run(asked) as run:
        with pytest.raises(ModelError, match="leave no room for a prompt in the model's context of 512"):
            train_reward(asked, run)
        assert run.metrics.rows() == []


def test_kinds_pool_to_the_whole() -> None:
    pairs = [PairRow([1], [2], None, kind, 1) for kind in ("a", "a", "b", "")]
    results = holdout_results(pairs, [1.0, -1.0, 2.0, 0.0])
    assert results["reward/accuracy_share"] == pytest.approx(2.5 / 4)
    assert results["reward/accuracy_share[a]"] == 0.5
    assert results["reward/accuracy_share[b]"] == 1.0
    assert holdout_results([], []) == {}
