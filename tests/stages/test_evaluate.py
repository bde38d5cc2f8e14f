"""The evaluation stage on tiny models: what must be equal is equal, what must differ differs, every suite reports."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification

from aligner.data.build import build_prompts
from aligner.errors import Interrupted
from aligner.evals.gold import Gold, exact_match, gold_reward
from aligner.evals.suites import Decoding, Subject, answer_prompts, measure_documents, measure_tasks
from aligner.models.heads import RewardModel, RewardStats, write_stats
from aligner.models.load import load_trained
from aligner.models.scoring import Scoring
from aligner.recipe.data import SourceSpec
from aligner.recipe.evaluate import EvaluateRecipe, SuitesSpec
from aligner.recipe.training import SamplingSpec
from aligner.run.folder import RunFolder
from aligner.stages.evaluate import evaluate
from tests.models.test_scoring import answer_nats
from tests.tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
WORDS = ("red", "blue", "old", "happy", "sad", "house", "fig", "pear")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> SourceSpec:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SourceSpec(path=str(path))


def prompt_rows(count: int, *, gold: bool = True) -> list[dict[str, Any]]:
    return [
        {"id": f"p{i}", "family": ("color", "number")[i % 2], "prompt": f"What is {WORDS[i % 8]} {i}?"}
        | ({"gold": {"kind": "answerable", "answers": [WORDS[i % 8]]}} if gold else {})
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three language models (`same` is `sft`) and a reward model of the same tokenizer."""
    root = tmp_path_factory.mktemp("models")
    for name, seed in (("base", 1), ("sft", 2), ("same", 2), ("reward", 3)):
        model = tiny_model(TOKENIZER, seed=seed)
        if name == "reward":
            model.config.num_labels = 1
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = LlamaForSequenceClassification(model.config)
        model.save_pretrained(root / name)
        TOKENIZER.save_pretrained(root / name)
    write_stats(root / "reward", RewardStats(0.1, 0.5, 8))
    return {name: str(root / name) for name in ("base", "sft", "same", "reward")}


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> SuitesSpec:
    root = tmp_path_factory.mktemp("rows")
    pairs = [
        {
            "prompt": f"Is it {word}?",
            "chosen": f"It is {word}.",
            "rejected": "no",
            "kind": ("honest", "wrong")[i % 2],
        }
        for i, word in enumerate(WORDS)
    ]
    return SuitesSpec(
        documents=[
            write_rows(root / "documents.jsonl", [{"text": "The cat of Mia is red."}, {"text": "It is old."}])
        ],
        answer_nats=True,
        tasks={"items": [write_rows(root / "items.jsonl", prompt_rows(10))]},
        pairs=[write_rows(root / "pairs.jsonl", pairs)],
        prompts=[write_rows(root / "prompts.jsonl", prompt_rows(12))],
        prompt_rows=8,
        samples_per_prompt=3,
        best_of=5,
        shots=[1],
        few_shot=["base"],
        examples=[write_rows(root / "examples.jsonl", prompt_rows(16))],
    )


def run_evaluation(
    output: Path, models: dict[str, str], suites: SuitesSpec, **more: Any
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    recipe = EvaluateRecipe(
        stage="evaluate",
        output=str(output),
        models=models,
        suites=suites,
        sampling=SamplingSpec(max_new_tokens=6),
        **more,
    )
    with RunFolder.open(recipe, recipe_text="") as run:
        results = evaluate(recipe, run).results
        run.write_results(results)
        assert set(run.manifest.parents) == {*models, *(["reward"] if recipe.reward else [])}
        assert run.manifest.data
    lines = (output / "samples.jsonl").read_text().splitlines() if (output / "samples.jsonl").exists() else []
    return results, [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def evaluated(
    tmp_path_factory: pytest.TempPathFactory, models: dict[str, str], suites: SuitesSpec
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    names = {name: models[name] for name in ("base", "sft", "same")}
    output = tmp_path_factory.mktemp("runs") / "evaluate"
    return run_evaluation(output, names, suites, reference="sft", reward=models["reward"])


def test_a_copy_of_the_reference_is_no_different_from_it(
    evaluated: tuple[dict[str, float], list[dict[str, Any]]],
):
    results, _ = evaluated
    assert results["same/kl_nats_per_response"] == pytest.approx(0.0, abs=1e-4)
    for metric in (
        "bits_per_byte",
        "exact_match_share[items]",
        "gold_reward_greedy",
        "likelihood_accuracy_share",
    ):
        assert results[f"same/{metric}"] == results[f"sft/{metric}"]
    assert results["same/gold_gain_low"] <= 0.0 <= results["same/gold_gain_high"]


def test_another_model_is_different(evaluated: tuple[dict[str, float], list[dict[str, Any]]]):
    results, _ = evaluated
    assert results["base/kl_nats_per_response"] > 0.01
    assert results["base/bits_per_byte"] != results["sft/bits_per_byte"]


def test_every_suite_reports_for_every_model(evaluated: tuple[dict[str, float], list[dict[str, Any]]]):
    results, _ = evaluated
    for name in ("base", "sft", "same"):
        for metric in (
            "bits_per_byte", "exact_match_share[items]", "exact_match_share[items.color]", "gold_reward",
            "answer_nats[items]", "answer_nats[items.color]",
            "gold_reward_greedy", "gold_reward_greedy[items]", "proxy_reward", "response_tokens", "finished_share", "repetition_share",
            "distinct_share", "unknown_share", "refusal_share", "abstained_answerable_share",
            "likelihood_accuracy_share", "likelihood_accuracy_share[honest]",
        ):  # fmt: skip
            assert f"{name}/{metric}" in results
    assert {key for key in results if "few_shot" in key} == {
        "base/few_shot_exact_match_share[items]", "base/few_shot_exact_match_share[items.1]",
    }  # fmt: skip
    assert "sft/best_of_5_gold_reward" in results and "base/best_of_5_gold_reward" not in results
    assert "sft/gold_gain" not in results
    for key in ("accuracy_share", "accuracy_low_share[wrong]", "pairs[honest]", "calibration_error_share"):
        assert f"reward/{key}" in results
    assert results["reward/pairs"] == 8


def test_side_by_side_rows_hold_every_models_greedy_answer(
    evaluated: tuple[dict[str, float], list[dict[str, Any]]],
):
    results, rows = evaluated
    assert len(rows) == 8
    for row in rows:
        assert list(row["responses"]) == ["base", "sft", "same"]
        assert row["responses"]["sft"] == row["responses"]["same"]
        assert row["prompt"].startswith("What is ") and row["family"] in ("color", "number")
    for name in ("base", "sft"):
        mean = sum(row["gold_rewards"][name] for row in rows) / 8
        assert mean == pytest.approx(results[f"{name}/gold_reward_greedy"])


def test_a_suite_of_tasks_is_worth_what_the_same_prompts_are(tmp_path: Path, models: dict[str, str]):
    def measured(rows: list[dict[str, Any]], name: str) -> tuple[dict[str, float], list[dict[str, Any]]]:
        source = write_rows(tmp_path / f"{name}.jsonl", rows)
        suites = SuitesSpec(tasks={"items": [source]}, prompts=[source], samples_per_prompt=1, best_of=0)
        return run_evaluation(tmp_path / name, {"sft": models["sft"]}, suites)

    rows = prompt_rows(12)
    results, said = measured(rows, "before")
    assert results["sft/gold_reward_greedy[items]"] == results["sft/gold_reward_greedy"]
    for row, answer in list(zip(rows, said, strict=True))[:4]:  # a third of what it says is right after all
        row["gold"] = {"kind": "answerable", "answers": [answer["responses"]["sft"]]}
    better, _ = measured(rows, "after")
    assert better["sft/gold_reward_greedy[items]"] == pytest.approx(better["sft/gold_reward_greedy"])
    assert better["sft/gold_reward_greedy[items]"] > results["sft/gold_reward_greedy[items]"]


def test_exact_match_is_that_of_transformers_own_generation(
    evaluated: tuple[dict[str, float], list[dict[str, Any]]], models: dict[str, str]
):
    _, rows = evaluated
    loaded = load_trained(models["sft"])
    for row in rows[:4]:
        messages = [{"role": "user", "content": row["prompt"]}]
        ids = TOKENIZER(TOKENIZER.apply_chat_template(messages, add_generation_prompt=True, tokenize=False),
                        add_special_tokens=False, return_tensors="pt")["input_ids"]  # fmt: skip
        out = loaded.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False
        )[0]
        text = TOKENIZER.decode(out[ids.shape[1] :], skip_special_tokens=True).strip()
        assert text == row["responses"]["sft"]
        gold = Gold.from_row(row)
        ended = bool((out == TOKENIZER.eos_token_id).any())
        assert row["gold_rewards"]["sft"] == gold_reward(text, gold, finished=ended)
        assert not exact_match(text, gold) or row["gold_rewards"]["sft"] > 0


def test_prompts_without_gold_are_judged_by_the_reward_model_alone(tmp_path: Path, models: dict[str, str]):
    suites = SuitesSpec(
        prompts=[write_rows(tmp_path / "p.jsonl", prompt_rows(6, gold=False))], samples_per_prompt=2
    )
    names = {"sft": models["sft"], "base": models["base"]}
    results, rows = run_evaluation(tmp_path / "run", names, suites, reference="sft", reward=models["reward"])
    assert not [key for key in results if "gold" in key or "answerable" in key]
    assert {"sft/proxy_reward", "base/proxy_gain", "base/proxy_gain_low", "base/proxy_gain_high"} <= set(
        results
    )
    gain = results["base/proxy_reward"] - results["sft/proxy_reward"]
    assert results["base/proxy_gain"] == pytest.approx(gain, abs=1e-6)
    assert rows[0]["gold_rewards"] == {} and set(rows[0]["responses"]) == {"sft", "base"}


def test_a_model_that_judges_by_its_own_likelihood_is_the_likelihood_judge(
    tmp_path: Path, models: dict[str, str], suites: SuitesSpec
):
    """The reward model is `sft` itself, read as a likelihood: what evaluation measures twice must agree."""
    shutil.copytree(models["sft"], tmp_path / "judge")
    write_stats(tmp_path / "judge", RewardStats(-20.0, 4.0, 8, Scoring("likelihood", 0.5)))
    prompts = [write_rows(tmp_path / "p.jsonl", prompt_rows(6, gold=False))]
    spec = SuitesSpec(pairs=suites.pairs, prompts=prompts, samples_per_prompt=2)
    names = {"sft": models["sft"]}
    results, _ = run_evaluation(
        tmp_path / "run", names, spec, reference="sft", reward=str(tmp_path / "judge")
    )
    for kind in ("", "[honest]", "[wrong]"):
        assert results[f"reward/accuracy_share{kind}"] == results[f"sft/likelihood_accuracy_share{kind}"]
    loaded = load_trained(models["sft"])
    built = build_prompts(prompts, loaded.tokenizer, max_prompt_tokens=506, seed=0).rows
    subject = Subject("sft", loaded.model, loaded.tokenizer, 512)
    drawn = answer_prompts(subject, built, Decoding(6, 1.0, 0), samples=2).samples
    nats = [
        answer_nats(loaded.model, row.input_ids + ids, len(row.input_ids)).item()
        for part in drawn
        for row, ids in zip(built, part.token_ids, strict=True)
    ]
    assert results["sft/proxy_reward"] == pytest.approx((0.5 * sum(nats) / len(nats) + 20) / 4, rel=1e-4)


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path, models: dict[str, str], suites: SuitesSpec):
    small = suites.model_copy(
        update={"tasks": {}, "few_shot": [], "shots": [], "examples": [], "documents": []}
    )
    first, second = (
        run_evaluation(tmp_path / name, {"sft": models["sft"]}, small, reference="sft", seed=5)[0]
        for name in "ab"
    )
    assert first == second


def test_an_interrupted_evaluation_keeps_its_finished_suites(
    tmp_path: Path,
    models: dict[str, str],
    suites: SuitesSpec,
    evaluated: tuple[dict[str, float], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {name: models[name] for name in ("base", "sft", "same")}
    run = partial(run_evaluation, models=names, suites=suites, reference="sft", reward=models["reward"])
    measured: list[str] = []

    def pressed(subject: Subject, *rest: Any, **more: Any) -> Any:
        measured.append(f"{subject.name} tasks")
        if subject.name == "base" and len(measured) < 5:
            raise KeyboardInterrupt
        return measure_tasks(subject, *rest, **more)

    def noted(subject: Subject, *rest: Any, **more: Any) -> Any:
        measured.append(f"{subject.name} documents")
        return measure_documents(subject, *rest, **more)

    monkeypatch.setattr("aligner.evals.suites.measure_tasks", pressed)
    monkeypatch.setattr("aligner.evals.suites.measure_documents", noted)
    with pytest.raises(Interrupted, match="4 finished parts are kept"):
        run(tmp_path)
    assert measured == ["sft documents", "sft tasks", "base documents", "base tasks"]
    assert run(tmp_path) == evaluated
    assert measured[4:] == ["base tasks", "same documents", "same tasks"]
    kept = json.loads((tmp_path / "checkpoints" / "parts.json").read_text())
    kept["measured_on"]["parents"]["sft"] = "elsewhere#0"
    (tmp_path / "checkpoints" / "parts.json").write_text(json.dumps(kept))
    run(tmp_path)
    assert len(measured) == 7 + 6  # on another model, everything again


def test_a_reward_model_of_another_tokenizer_reads_texts(
    tmp_path: Path, models: dict[str, str], suites: SuitesSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pairs get the scores they get beside a model of its own tokenizer; answers those of their chats, rendered here."""
    other = tiny_tokenizer(vocab_size=340)
    tiny_model(other, seed=5).save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    spec = SuitesSpec(pairs=suites.pairs, prompts=suites.prompts, prompt_rows=12, samples_per_prompt=2)
    names = {"other": str(tmp_path / "other")}
    results, _ = run_evaluation(tmp_path / "run", names, spec, reward=models["reward"])
    assert "reads what other says as texts" in capsys.readouterr().err
    alike, _ = run_evaluation(tmp_path / "alike", {"sft": models["sft"]}, spec, reward=models["reward"])
    of_reward = {key for key in alike if key.startswith("reward/")}
    assert len(of_reward) > 3 and {key: results[key] for key in of_reward} == {
        key: alike[key] for key in of_reward
    }
    loaded = load_trained(tmp_path / "other")
    built = build_prompts(spec.prompts, loaded.tokenizer, max_prompt_tokens=506, seed=0).rows
    subject = Subject("other", loaded.model, loaded.tokenizer, 512)
    drawn = answer_prompts(subject, built, Decoding(6, 1.0, 0), samples=2).samples
    judge, chats, lengths = RewardModel.from_folder(models["reward"]), [], []
    for part in drawn:
        for row, text, done in zip(built, part.texts, part.finished, strict=True):
            asked = [{"role": "user", "content": row.prompt.turns[0].content}]
            broken = text.replace("<|", "< |")  # nobody ends a turn by writing so
            said = [*asked, {"role": "assistant", "content": broken}]
            ids = TOKENIZER.apply_chat_template(said, tokenize=True, return_dict=False)
            chats.append(ids if done else ids[:-1])
            lengths.append(1)  # a score head does not ask where the prompt ends
    assert results["other/proxy_reward"] == pytest.approx(
        judge.normalised(chats, lengths).mean().item(), abs=1e-5
    )


def test_both_judges_are_held_against_gold_on_the_references_own_samples(
    tmp_path: Path, models: dict[str, str]
):
    # What the model itself says in its first sample is made the right answer, so that samples differ in gold.
    rows = prompt_rows(8, gold=False)
    spec = SuitesSpec(prompts=[write_rows(tmp_path / "p.jsonl", rows)])
    loaded = load_trained(models["sft"])
    built = build_prompts(spec.prompts, loaded.tokenizer, max_prompt_tokens=506, seed=0).rows
    subject = Subject("sft", loaded.model, loaded.tokenizer, 512)
    drawn = answer_prompts(subject, built, Decoding(6, 1.0, 0), samples=4).samples
    texts = {row.prompt.turns[0].content: text for row, text in zip(built, drawn[0].texts, strict=True)}
    golden = [row | {"gold": {"kind": "answerable", "answers": [texts[row["prompt"]]]}} for row in rows]
    spec = SuitesSpec(prompts=[write_rows(tmp_path / "p.jsonl", golden)], samples_per_prompt=2, best_of=4)
    names = {"sft": models["sft"], "base": models["base"]}
    results, _ = run_evaluation(tmp_path / "run", names, spec, reference="sft", reward=models["reward"])
    judge = RewardModel.from_folder(models["reward"])
    rewarded = likelier = count = 0.0
    for i, row in enumerate(built):
        gold = Gold.from_row({"gold": {"kind": "answerable", "answers": [drawn[0].texts[i]]}})
        said = {part.texts[i]: part for part in reversed(drawn)}
        for better in said:
            for worse in said:
                if gold_reward(better, gold, finished=said[better].finished[i]) > gold_reward(
                    worse, gold, finished=said[worse].finished[i]
                ):
                    ids = [row.input_ids + said[text].token_ids[i] for text in (better, worse)]
                    high, low = judge.score(ids, [len(row.input_ids)] * 2).tolist()
                    rewarded += (high > low) + 0.5 * (high == low)
                    likelier += said[better].logprobs[i] > said[worse].logprobs[i]
                    count += 1
    assert count > 5
    assert results["reward/own_samples_pairs"] == count
    assert results["reward/own_samples_accuracy_share"] == pytest.approx(rewarded / count)
    assert results["reward/own_samples_likelihood_share"] == pytest.approx(likelier / count)
    assert results["reward/own_samples_likelihood_low_share"] <= likelier / count
    assert results["sft/best_of_4_gold_reward"] > results["sft/gold_reward"]
    gap = results["sft/best_of_4_gold_reward"] - results["sft/gold_reward"]
    assert results["base/gap_closed_share"] == pytest.approx(results["base/gold_gain"] / gap)
