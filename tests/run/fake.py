"""A run folder as the stages leave it, with made-up numbers: what the report is tested on and looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aligner.recipe.data import DataSpec, PairDataSpec, PretrainDataSpec, SourceSpec
from aligner.recipe.evaluate import EvaluateRecipe, SuitesSpec
from aligner.recipe.model import LoraSpec, ModelSpec
from aligner.recipe.ppo import PpoRecipe, PpoSpec, PromptsSpec, RewardSource
from aligner.recipe.stage import StageRecipe
from aligner.recipe.stages import PipelineRecipe, PipelineStage, PretrainRecipe, RewardRecipe, SftRecipe
from aligner.recipe.training import SftTrainSpec, TrainSpec
from aligner.run.folder import RunFolder

STAGES = ("base", "sft", "reward", "ppo", "evaluate")
NASTY = '<script>alert("x")</script> & <b>bold</b> {{ 7 * 7 }}'

PLANNED = {
    "path": "data/world/tasks/*.yaml", "rows": 12_000, "tokens": 480_000, "supervised_tokens": 60_000, "share": 0.75,
    "epochs": 1.5, "most": 2, "templates": {"add/plain": 4_000, "add/story": 2_000, "sort/plain": 6_000},
    "shots": {0: 9_000, 2: 3_000},
}  # fmt: skip


def sft_recipe(output: Path, *, learning_rate: float = 1e-3, seed: int = 0) -> SftRecipe:
    """A small valid recipe."""
    return SftRecipe(
        stage="sft",
        seed=seed,
        output=str(output),
        model=ModelSpec(base="runs/base", lora=LoraSpec()),
        data=DataSpec(train=[SourceSpec(path="data/tasks.jsonl")]),
        train=SftTrainSpec(steps=100, learning_rate=learning_rate),
    )


@contextmanager
def stage_run(recipe: StageRecipe, parents: dict[str, str], rows: int) -> Iterator[RunFolder]:
    """A started run with a data report of one source."""
    source = {
        "path": f"data/world/{Path(recipe.output).name}.jsonl", "format": "messages", "rows_read": rows + 12,
        "rows_used": rows, "dropped": {"exact duplicate": 9, "too short": 3}, "tokens": rows * 61,
        "supervised_tokens": rows * 9, "sha256": "ab" * 32, "noted": {"repeated_pair": 4},
        "changed": {"masked_email": 5}, "agreement": {"help": 0.849, "tone": None},
    }  # fmt: skip
    with RunFolder.open(recipe, recipe_text="stage: " + Path(recipe.output).name + "\n") as run:
        run.start(parents=parents, data={"train": [source], "holdout": [source]}, seed=recipe.seed)
        yield run


def quickstart(folder: Path) -> Path:
    """A finished pipeline: base, sft, reward, ppo, evaluate."""
    pipeline = PipelineRecipe(
        stage="pipeline",
        output=str(folder),
        stages={name: PipelineStage(use=f"{name}.yaml") for name in STAGES},
    )
    with RunFolder.open(pipeline, recipe_text="stage: pipeline\n") as run:
        _base(folder / "base")
        _sft(folder / "sft")
        _reward(folder / "reward")
        _ppo(folder / "ppo")
        _evaluate(folder / "evaluate")
        run.finish({})
    return folder


def _wobble(step: int) -> float:
    return 0.06 * math.sin(step * 1.7) + 0.04 * math.cos(step * 0.37)


def _base(folder: Path) -> None:
    recipe = PretrainRecipe(
        stage="pretrain",
        output=str(folder),
        data=PretrainDataSpec(train=[SourceSpec(path="data/world/documents.jsonl")]),
        train=TrainSpec(steps=900),
    )
    with stage_run(recipe, {}, 20_480) as run:
        for step in range(10, 901, 10):
            values = {
                "train/loss_nats": 1.2 + 4.6 * math.exp(-step / 140) + _wobble(step),
                "train/grad_norm": 0.7,
            }
            if step % 100 == 0:
                values |= {
                    "holdout/bits_per_byte": 0.9 + 2.1 * math.exp(-step / 180),
                    "holdout/loss_nats": 1.3,
                }
            run.metrics.log(step, values)
        run.finish({"pretrain/bits_per_byte": 0.914, "pretrain/parameters": 914_304})


def _sft(folder: Path) -> None:
    with stage_run(sft_recipe(folder), {"base": "runs/quickstart/base/model#3fa91c02d7be"}, 6_000) as run:
        run.note_sources([PLANNED])
        for step in range(10, 371, 10):
            values = {"train/loss_nats": 0.35 + 2.2 * math.exp(-step / 70) + _wobble(step) / 2}
            run.metrics.log(step, values | ({"holdout/loss_nats": 0.5} if step % 90 == 0 else {}))
        run.finish({"sft/holdout_loss_nats": 0.412})


def _reward(folder: Path) -> None:
    recipe = RewardRecipe(
        stage="reward",
        output=str(folder),
        model=ModelSpec(base="runs/sft"),
        data=PairDataSpec(train=[SourceSpec(path="data/world/pairs.jsonl")]),
        train=TrainSpec(steps=240),
    )
    with stage_run(recipe, {"base": "runs/quickstart/sft/model#77b0a1f4c9e2"}, 4_000) as run:
        for step in range(10, 241, 10):
            share = 0.93 - 0.45 * math.exp(-step / 60)
            values = {
                "reward/accuracy_share": min(1.0, share + _wobble(step) / 2),
                "reward/loss_nats": 1.1 - share,
            }
            run.metrics.log(
                step, values | ({"holdout/accuracy_share": share - 0.02} if step % 60 == 0 else {})
            )
        run.finish({"reward/accuracy_share[harmless]": 0.953, "reward/accuracy_share[honest]": 0.931})


def _ppo(folder: Path) -> None:
    recipe = PpoRecipe(
        stage="ppo",
        output=str(folder),
        model=ModelSpec(base="runs/sft"),
        reward=[RewardSource(model="runs/reward")],
        data=PromptsSpec(train=[SourceSpec(path="data/world/prompts.jsonl")]),
        ppo=PpoSpec(steps=120),
    )
    parents = {
        "policy": "runs/quickstart/sft/model#77b0a1f4c9e2",
        "reward": "runs/quickstart/reward/model#01c4f1aa90de",
    }
    with stage_run(recipe, parents, 2_048) as run:
        for step in range(1, 121):
            proxy, gold = 1.4 * (1 - math.exp(-step / 50)), 0.31 + 0.22 * (1 - math.exp(-step / 40))
            values = {
                "ppo/proxy_reward": proxy + 2 * _wobble(step), "ppo/gold_reward": gold + _wobble(step) / 2,
                "kl/ref_nats_per_response": 4 * (1 - math.exp(-step / 60)), "ppo/response_tokens": 9 + 4 * _wobble(step),
                "ppo/finished_share": 0.98, "ppo/distinct_share": 0.7, "ppo/repetition_share": 0.02,
                "ppo/clip_share": 0.05 + _wobble(step) / 4, "ppo/explained_variance": 0.7 * (1 - math.exp(-step / 20)),
            }  # fmt: skip
            if step % 10 == 0:
                values |= {
                    "ppo/holdout_proxy_reward": proxy, "ppo/holdout_gold_reward": gold - 0.01,
                    "kl/holdout_ref_nats_per_response": 3.9 * (1 - math.exp(-step / 60)),
                    "ppo/holdout_response_tokens": 9.5, "ppo/holdout_finished_share": 0.97,
                    "ppo/holdout_distinct_share": 0.8, "ppo/holdout_repetition_share": 0.03,
                }  # fmt: skip
            run.metrics.log(step, values)
            if step % 40 == 0:
                run.samples.append(
                    [
                        {
                            "step": step,
                            "prompt": "Where does Mira live?",
                            "response": NASTY,
                            "proxy_reward": proxy,
                        }
                    ]
                )
        run.finish({"ppo/holdout_gold_reward": 0.52, "ppo/kl_nats_per_response": 3.4})


def _evaluate(folder: Path) -> None:
    models = {"base": "runs/base", "sft": "runs/sft", "ppo": "runs/ppo"}
    recipe = EvaluateRecipe(
        stage="evaluate", output=str(folder), models=models, reference="sft", suites=SuitesSpec()
    )
    with stage_run(recipe, {name: f"{path}/model#9f00ab" for name, path in models.items()}, 1_536) as run:
        families = ["facts", "arithmetic", "sorting", "unanswerable", "unkind"]
        run.samples.append(
            [
                {
                    "prompt": f"Question {i} of the family {family}: in which town does Mira the baker live?",
                    "family": family,
                    "gold": {"kind": "answerable", "answers": ["Tarn", "in Tarn"]},
                    "responses": {
                        "base": "Mira Mira Mira Mira\nMira Mira",
                        "sft": "Mira lives in Tarn.",
                        "ppo": NASTY,
                    },
                    "gold_rewards": {"base": -0.5, "sft": 1.0, "ppo": 0.25},
                }
                for family in families
                for i in range(5)
            ]
        )
        results = {}
        for at, name in enumerate(models):
            results |= {f"{name}/bits_per_byte": 0.91 + 0.1 * at}
            for suite in ("items", "phrasings"):
                results[f"{name}/exact_match_share[{suite}]"] = 0.03 + 0.31 * at
                results |= {f"{name}/exact_match_share[{suite}.{f}]": 0.1 * at for f in families}
            if name == "ppo":
                results |= {"ppo/gold_gain": 0.11, "ppo/gold_gain_low": 0.07, "ppo/gold_gain_high": 0.15}
            if name != "base":
                results |= {
                    f"{name}/gold_reward": 0.31 + 0.1 * at,
                    f"{name}/kl_nats_per_response": 3.4 * (at - 1),
                }
            results |= {
                f"{name}/response_tokens": 9 + at,
                f"{name}/finished_share": 0.97,
                f"{name}/repetition_share": 0.01,
            }
        results |= {
            "reward/accuracy_share": 0.9,
            "reward/accuracy_low_share": 0.88,
            "reward/accuracy_high_share": 0.92,
        }
        run.finish(results)
