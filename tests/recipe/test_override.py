"""`-s key=value` and a pipeline's `set` change what the file says, and nothing slips through them."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner.errors import RecipeError
from aligner.recipe.load import load_recipe
from aligner.recipe.preference import DpoRecipe
from aligner.recipe.stages import PipelineRecipe, SftRecipe
from tests.recipe.complete import write_complete

RECIPE = Path("sft-complete.yaml")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_complete(tmp_path)


def load(*overrides: str, **kwargs: object) -> SftRecipe:
    recipe = load_recipe(RECIPE, overrides, **kwargs).recipe  # type: ignore[arg-type]
    assert isinstance(recipe, SftRecipe)
    return recipe


def mistake(*overrides: str, **kwargs: object) -> tuple[str, str, str]:
    with pytest.raises(RecipeError) as caught:
        load(*overrides, **kwargs)
    (problem,) = caught.value.problems
    return problem.where, problem.what, problem.remedy


def test_overrides_set_scalars_entries_of_lists_and_whole_parts() -> None:
    recipe = load("train.learning_rate=5e-5", "data.train.0.cap=7", "model.lora={rank: 2}", "output=runs/b=c")
    assert recipe.train.learning_rate == 5e-5
    assert recipe.data.train[0].cap == 7
    assert recipe.model.lora is not None and (recipe.model.lora.rank, recipe.model.lora.alpha) == (2, 32)
    assert recipe.output == "runs/b=c"


def test_the_last_override_wins_and_null_takes_a_key_out() -> None:
    recipe = load("train.epochs=null", "train.steps=3", "train.steps=4")
    assert (recipe.train.epochs, recipe.train.steps) == (None, 4)


def test_an_override_makes_the_parts_on_its_way() -> None:
    recipe = load("model.lora=null", "model.quantize=none", "model.lora.rank=4")
    assert recipe.model.lora is not None and recipe.model.lora.rank == 4


@pytest.mark.parametrize(
    ("override", "where", "what", "remedy"),
    [
        ("train.epoch=2", "-s train.epoch", 'unknown key "train.epoch"', 'did you mean "train.epochs"?'),
        ("train.log_every='2'", "-s train.log_every", "train.log_every is text", "write log_every: 2 without quotes"),
        ("train.schedule=cosin", "-s train.schedule", "is not one of its values", 'did you mean "cosine"?'),
        ("data.train.3.cap=1", "-s data.train.3.cap", '"3" is no entry of data.train', "numbered 0 to 0"),
        ("data.train.x=1", "-s data.train.x", '"x" is no entry of data.train', "numbered 0 to 0"),
        ("seed.low=1", "-s seed.low", "seed = 3 holds no keys", "set seed as a whole"),
        ("seed", "-s seed", "not an override", "write -s key=value"),
        ("=3", "-s =3", "not an override", "write -s key=value"),
        ("train..steps=3", "-s train..steps=3", "not an override", "write -s key=value"),
        ("data.train.0.path=gone", "-s data.train.0.path", "nothing at gone", ""),
        ("model.lora=[1, 2", "-s model.lora", "not YAML", "brackets and quotes"),
        ("train.steps=5", "sft-complete.yaml:32:1", "train: give either epochs or steps", "key=null takes a key out"),
        ("stage=ppo", "-s stage", "stage = \"ppo\" is not one of its values", "valid: sft"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_pointed_to(override: str, where: str, what: str, remedy: str) -> None:
    got_where, got_what, got_remedy = mistake(override)
    assert got_where == where
    assert what in got_what
    assert remedy in got_remedy


def test_changes_of_a_pipeline_are_applied_before_overrides() -> None:
    changes = {"train.epochs": 5, "output": "runs/p/sft", "model.base": "@base"}
    recipe = load("train.epochs=6", changes=changes, in_pipeline=True)
    assert (recipe.train.epochs, recipe.output, recipe.model.base) == (6, "runs/p/sft", "@base")
    where, what, _ = mistake(changes={"train.epoch": 5})
    assert (where, what) == ("sft-complete.yaml, set train.epoch", 'unknown key "train.epoch"')


def test_in_a_pipeline_the_name_of_a_stage_reaches_into_its_recipe() -> None:
    path = Path("pipeline-complete.yaml")
    for override in ("sft.train.epochs=7", "stages.sft.set.train.epochs=7"):
        recipe = load_recipe(path, [override, "seed=9", "base.train.steps=2"]).recipe
        assert isinstance(recipe, PipelineRecipe)
        assert recipe.seed == 9
        assert recipe.stages["sft"].set == {"model.base": "@base", "train.epochs": 7}
        assert recipe.stages["base"].set == {"train.steps": 2}


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("sftt.train.epochs=7", 'did you mean "sft.train.epochs"?'),
        (
            "zzz.train.epochs=7",
            "begin with the name of a stage (base, sft), or write stage, seed, output, root",
        ),
        ("steps=7", "begin with the name of a stage (base, sft), or write stage, seed, output, root"),
        ("sede=7", 'did you mean "seed"?'),
    ],
)
def test_a_pipelines_override_that_begins_with_no_stage_is_told_with_the_stages(
    override: str, remedy: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(Path("pipeline-complete.yaml"), [override])
    (problem,) = caught.value.problems
    key = override.partition("=")[0]
    assert (problem.where, problem.what, problem.remedy) == (f"-s {key}", f'unknown key "{key}"', remedy)


def test_null_takes_a_list_out_where_it_may_be_left_out() -> None:
    recipe = load_recipe(Path("dpo-complete.yaml"), ["reward=null"]).recipe
    assert isinstance(recipe, DpoRecipe) and recipe.reward == []
    where, what, remedy = mistake("data.train=null")
    assert (where, what) == ("-s data.train", 'missing key "data.train"') and "a list of" in remedy
    assert mistake("model=null")[:2] == ("-s model", 'missing key "model"')
