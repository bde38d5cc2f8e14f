"""Loss spikes: the rule by hand, and the rows that are named against those that the model was given."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import aligner.stages.preference
import aligner.stages.pretrain
import aligner.stages.reward
import aligner.stages.sft
from aligner.errors import Interrupted
from aligner.recipe.stage import StageRecipe
from aligner.recipe.stages import PretrainRecipe
from aligner.run.lines import JsonLines
from aligner.stages import spikes
from aligner.stages.loop import StageTrainer
from aligner.stages.pretrain import train_pretrain
from aligner.stages.rollouts import losses_in
from aligner.stages.sft import train_sft
from aligner.stages.spikes import Spike, SpikeRule
from tests.stages import ppo_world, test_kto, test_pretrain, test_reward, test_sft
from tests.stages.tools import interrupt_when_logged, open_run, write_jsonl
from tests.tiny import tiny_tokenizer

USUAL = [1.0, 3.0] * 50  # mean 2, deviation 1: what is above 8 is high
LOW = [0.01, 0.02] * 50  # beside which every true loss is
MAKERS = {
    "pretrain": (aligner.stages.pretrain, "block_trainer"),
    "sft": (aligner.stages.sft, "answer_trainer"),
    "reward": (aligner.stages.reward, "pair_trainer"),
    "kto": (aligner.stages.preference, "preference_trainer"),
}


def seen(losses: list[float], *, usual: list[float] = USUAL) -> list[Spike | None]:
    rule = SpikeRule(list(usual))
    return [rule.see(loss) for loss in losses]


def test_three_high_losses_in_a_row_are_a_spike_and_two_are_none() -> None:
    assert seen([8.1, 9.0, 8.2]) == [None, None, Spike([8.1, 9.0, 8.2], 2.0, 1.0)]
    assert seen([8.1, 9.0, 8.0, 8.1, 9.0]) == [None] * 5  # 8 is not above 8
    assert seen([8.1, 9.0, 2.0, 9.0]) == [None] * 4


def test_what_is_told_is_usual_from_then_on() -> None:
    assert [spike is not None for spike in seen([50.0] * 30)] == [False, False, True] + [False] * 27


def test_without_a_hundred_steps_or_without_noise_nothing_is_judged() -> None:
    assert seen([50.0] * 3, usual=USUAL[1:]) == [None] * 3  # the first makes it a hundred, and noisy
    assert seen([50.0] * 3, usual=[2.0] * 100) == [None] * 3


def test_two_high_losses_that_come_to_nothing_are_remembered() -> None:
    rule = SpikeRule(list(USUAL))
    for loss in (9.0, 9.5, 2.5):
        rule.see(loss)
    assert rule.usual == [*USUAL[3:], 9.0, 9.5, 2.5] and rule.high == []


def primed(monkeypatch: pytest.MonkeyPatch, stage: str) -> list[StageTrainer]:
    """Every trainer of the stage begins as if a hundred steps of hardly any loss lay behind it."""
    module, name = MAKERS[stage]
    real, made = getattr(module, name), list[StageTrainer]()

    def make(*args: Any, **more: Any) -> StageTrainer:
        made.append(real(*args, **more))
        made[-1].plan.spikes.go_on(usual=LOW)
        return made[-1]

    monkeypatch.setattr(module, name, make)
    return made


def numbered(folder: Path, stage: str) -> StageRecipe:
    """A recipe without a hold-out whose training rows have their line in their text."""
    train = {"steps": 5, "rows_per_device": 4, "checkpoint_every": 1}
    if stage == "sft":
        say = [{"role": "user", "content": "Say {}."}, {"role": "assistant", "content": "red cat"}]
        rows = [{"messages": [{**say[0], "content": f"Say {n}."}, say[1]]} for n in range(64)]
        write_jsonl(folder / "chats.jsonl", rows)
        train["rows_per_device"] = 8
        found: StageRecipe = test_sft.recipe(folder, **train, packing=True, pack_length=128)
    else:
        found = (test_kto if stage == "kto" else test_reward).recipe(folder, **train)
    data = found.data.model_dump() | {"holdout": {}}  # type: ignore[union-attr]
    return type(found).model_validate(found.model_dump() | {"data": data})


def rows_given(monkeypatch: pytest.MonkeyPatch) -> dict[int, set[int]]:
    """The numbers in the texts of the batches of each step, filled while a training runs."""
    found: dict[int, set[int]] = defaultdict(set)
    real = StageTrainer.training_step

    def step(trainer: StageTrainer, model: Any, inputs: Any, *more: Any) -> Any:
        texts = tiny_tokenizer().batch_decode(inputs["input_ids"])
        found[trainer.state.global_step + 1] |= {
            int(n) for text in texts for n in re.findall(r"Say (\d+)\.", text)
        }
        return real(trainer, model, inputs, *more)

    monkeypatch.setattr(StageTrainer, "training_step", step)
    return found


@pytest.mark.parametrize("stage", ["sft", "kto"])
def test_the_rows_that_are_named_are_those_that_were_read(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_named(stage, tmp_path, monkeypatch, capsys)


def check_named(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a stage whose first three losses are a spike."""
    asked, given = numbered(tmp_path, stage), rows_given(monkeypatch)
    made = primed(monkeypatch, stage)
    trains = {"sft": train_sft, "reward": aligner.stages.reward.train_reward}
    train: Any = trains.get(stage, aligner.stages.preference.train_preference)
    with open_run(asked) as run:
        train(asked, run)
        logged = [row for row in run.metrics.rows() if "train/grad_norm" in row]
        (told,) = run.spikes.rows()
    (trainer,) = made
    assert told["step"] == 3 and told["loss"] == trainer.loss_metric
    assert (told["mean"], told["deviation"]) == (pytest.approx(0.015), pytest.approx(0.005))
    assert told["losses"] == pytest.approx([row[trainer.loss_metric] for row in logged[:3]], rel=1e-5)
    file = str(tmp_path / ("chats.jsonl" if stage == "sft" else "pairs.jsonl"))
    for step in (1, 2, 3):
        assert set(told["rows"][str(step)]) == {f"{file} row {n + 1}" for n in given[step]}
    message = capsys.readouterr().err
    assert f"{trainer.loss_metric} was " in message and told["rows"]["1"][0] in message


def test_a_block_is_named_by_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    primed(monkeypatch, "pretrain")
    asked: PretrainRecipe = test_pretrain.recipe(tmp_path, steps=4)
    with open_run(asked) as run:
        train_pretrain(asked, run)
        (told,) = run.spikes.rows()
    texts = " ".join(json.loads(line)["text"] for line in (tmp_path / "texts.jsonl").open())
    begun = [re.fullmatch(r"block \d+ \(['\"](.*)['\"]\.\.\.\)", name) for name in told["rows"]["2"]]
    words = [word for found in begun if found for word in re.findall(r"[A-Za-z]{3,}", found[1])]
    assert all(begun) and len(words) > 10 and all(word in texts for word in words)


def test_a_stopped_training_judges_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two high losses before the stop and one after it; a line of a dead session that went further is dropped."""
    primed(monkeypatch, "sft")
    straight, broken = (
        test_sft.recipe(tmp_path, name, checkpoint_every=1) for name in ("straight", "broken")
    )
    with open_run(straight) as run:
        train_sft(straight, run)
        expected = run.spikes.rows()
    with pytest.raises(Interrupted, match="step 2 of 6"), open_run(broken) as run:
        interrupt_when_logged(run, 1)
        train_sft(broken, run)
    with open_run(broken) as run:
        assert run.spikes.rows() == []
        run.spikes.append([{"step": 3}])
        train_sft(broken, run)
        assert run.spikes.rows() == expected and len(expected) == 1


def test_ppo_names_its_prompts_and_judges_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spikes, "WINDOW", 2)
    monkeypatch.setattr(spikes, "DEVIATIONS", -1e9)  # every loss is high that is judged at all
    world = ppo_world.write_world(tmp_path)
    planted = importlib.import_module("tests.rl.planted")
    monkeypatch.setattr(planted, "SEEN", [])

    def plan(name: str) -> Any:
        found = ppo_world.recipe(
            world,
            tmp_path / name,
            steps=5,
            evaluate_every=5,
            prompts_per_step=4,
            reward="tests.rl.planted:seen",
        )
        return found.model_copy(update={"data": found.data.model_copy(update={"holdout": []})})

    ppo_world.run_it(plan("straight"))
    told = JsonLines(tmp_path / "straight" / "spikes.jsonl").rows()
    assert [(row["step"], row["loss"]) for row in told] == [(5, "ppo/policy_loss"), (5, "ppo/value_loss")]
    for step in (3, 4, 5):
        origins = [f"{tmp_path / 'prompts.jsonl'}:{row.origin.line}" for row in planted.SEEN[step - 1]]
        assert told[0]["rows"][str(step)] == origins and len(origins) == 4
    with monkeypatch.context() as patch:
        ppo_world.interrupt_in(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match="step 4 of 5"):
            ppo_world.run_it(plan("broken"))
    ppo_world.run_it(plan("broken"))
    assert JsonLines(tmp_path / "broken" / "spikes.jsonl").rows() == told


def test_the_losses_of_every_stage_that_samples_are_judged() -> None:
    row = {
        "grpo/policy_loss": 1.0,
        "ppo/value_loss": 2.0,
        "rejection/loss_nats": 3.0,
        "ppo/kl_coef": 4.0,
        "step": 1,
    }
    assert list(losses_in(row)) == ["grpo/policy_loss", "ppo/value_loss", "rejection/loss_nats"]
