"""Files, models and formats a recipe names: found where it says, refused where they cannot serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner.errors import RecipeError
from aligner.recipe.check import find_path
from aligner.recipe.load import load_recipe
from aligner.recipe.stages import SftRecipe

TEXT = """\
stage: sft
model:
  base: {base}
data:
  train:
    - path: {path}
      format: {form}
train: {{epochs: 1}}
output: runs/x
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work" / "data").mkdir(parents=True)
    (tmp_path / "book" / "rows").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "work" / "data" / "chat.jsonl").write_text("{}\n")
    (tmp_path / "book" / "rows" / "more.jsonl").write_text("{}\n")
    (tmp_path / "book" / "base.yaml").write_text("stage: pretrain\n")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def load(
    path: str = "data/chat.jsonl", base: str = "you/base", form: str = "messages", **kwargs: object
) -> SftRecipe:
    recipe = Path("../book/r.yaml")
    recipe.write_text(TEXT.format(path=path, base=base, form=form))
    loaded = load_recipe(recipe, **kwargs)  # type: ignore[arg-type]
    assert isinstance(loaded.recipe, SftRecipe)
    return loaded.recipe


def mistake(**kwargs: object) -> tuple[str, str, str]:
    with pytest.raises(RecipeError) as caught:
        load(**kwargs)  # type: ignore[arg-type]
    (problem,) = caught.value.problems
    return problem.where, problem.what, problem.remedy


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("data/chat.jsonl", "data/chat.jsonl"),
        ("data/*.jsonl", "data/*.jsonl"),
        ("data", "data"),
        ("rows/more.jsonl", "../book/rows/more.jsonl"),
        ("rows/*", "../book/rows/*"),
        ('"**/chat.jsonl"', "**/chat.jsonl"),
        ("[data/chat.jsonl, rows]", ["data/chat.jsonl", "../book/rows"]),
        ("hub:you/chats", "hub:you/chats"),
    ],
)
def test_paths_are_found_from_here_or_from_the_recipe(written: str, found: str | list[str]) -> None:
    assert load(written).data.train[0].path == found


def test_a_data_set_on_the_hub_stands_alone_and_has_an_id() -> None:
    where, what, _ = mistake(path="[data/chat.jsonl, hub:you/chats]")
    assert where.startswith("../book/r.yaml:6") and "hub:you/chats stands in a list" in what
    assert "is no id of a data set" in mistake(path="hub:chats")[1]


def test_absolute_paths_stay(folder: Path) -> None:
    assert load(str(folder / "book" / "rows")).data.train[0].path == str(folder / "book" / "rows")


def test_root_stands_before_the_paths_once() -> None:
    recipe = Path("../book/r.yaml")
    recipe.write_text(TEXT.format(path="rows", base="you/base", form="messages") + "root: ../book\n")
    loaded = load_recipe(recipe)
    assert loaded.recipe.data.train[0].path == "../book/rows"  # type: ignore[attr-defined]
    recipe.write_text(loaded.text)  # the saved recipe says the same when it is loaded again
    assert load_recipe(recipe).recipe == loaded.recipe
    with pytest.raises(RecipeError, match="nothing at rows"):
        load_recipe(recipe, ["root=..", "data.train.0.path=rows"])
    with pytest.raises(RecipeError, match="-s root: root: no folder elsewhere") as told:
        load_recipe(recipe, ["root=elsewhere", "data.train.0.path=rows"])
    assert len(told.value.problems) == 1


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("data/chta.jsonl", 'did you mean "data/chat.jsonl"?'),
        ("dta/chat.jsonl", 'did you mean "data/chat.jsonl"?'),
        ("dta/chats.jsonl", 'did you mean "data"?'),
        ("rows/mor.jsonl", 'did you mean "../book/rows/more.jsonl"?'),
        ("data/*.parquet", ""),
        ("../empty", "the folder is empty"),
    ],
)
def test_a_missing_path_names_its_nearest_sibling(written: str, remedy: str) -> None:
    where, what, told = mistake(path=written)
    assert (where, what) == ("../book/r.yaml:6:13", f"nothing at {written}")
    assert remedy in told


@pytest.mark.parametrize("written", ["mine/z.jsonl", "reward"])
def test_what_is_not_near_is_not_suggested(folder: Path, written: str) -> None:
    """An ending in common is no likeness, and half of the letters are not."""
    for name in ("mine/x.jsonl", "review"):
        (folder / "work" / name).parent.mkdir(exist_ok=True)
        (folder / "work" / name).write_text("{}")
    assert "did you mean" not in mistake(path=written)[2]


def test_a_path_to_nowhere_says_where_it_looked(folder: Path) -> None:
    _, _, told = mistake(path="qqq/www/eee")
    assert str(folder / "work") in told and "../book" in told


def test_a_base_recipe_has_to_be_there() -> None:
    assert load(base="base.yaml").model.base == "../book/base.yaml"
    where, what, told = mistake(base="bas.yaml")
    assert (where, what) == ("../book/r.yaml:3:9", "nothing at bas.yaml")
    assert told == 'did you mean "../book/base.yaml"?'


def test_a_base_folder_or_hub_id_is_taken_and_a_missing_folder_is_not() -> None:
    assert load(base="you/base").model.base == "you/base"
    assert load(base="gpt2").model.base == "gpt2"
    assert load(base="rows").model.base == "../book/rows"
    assert mistake(base="./data/model")[1] == "no folder ./data/model"
    assert mistake(base="runs/old/model")[1] == "no folder runs/old/model"


def test_stage_names_belong_to_pipelines() -> None:
    assert mistake(base='"@sft"')[1] == '"@sft" names a stage of a pipeline, and this recipe is run by itself'
    assert load(base='"@sft"', in_pipeline=True).model.base == "@sft"


def test_formats_have_to_fit_the_stage() -> None:
    where, what, told = mistake(form="pairs")
    assert (where, what) == (
        "../book/r.yaml:7:15",
        'data.train.0.format = "pairs": these rows do not fit here',
    )
    assert "messages" in told
    assert mistake(form="mesages")[2] == 'did you mean "messages"?'


def test_held_out_files_may_not_be_trained_on(folder: Path) -> None:
    both = TEXT.format(path="data/*", base="you/base", form="auto")
    both = both.replace("train: {", "  holdout: {sources: [{path: [data/chat.jsonl]}]}\ntrain: {")
    Path("r.yaml").write_text(both)
    with pytest.raises(RecipeError) as caught:
        load_recipe(Path("r.yaml"))
    (problem,) = caught.value.problems
    assert problem.where == "r.yaml:8:31"
    assert problem.what.endswith("work/data/chat.jsonl is trained on as well")


EARLY = """\
stage: pretrain
data:
  train: [{path: data/chat.jsonl}]
  curriculum: {sources: [{path: %s, format: %s}], until: %s}
  holdout: {sources: [{path: %s}]}
train: {steps: 1}
output: runs/x
"""


@pytest.mark.parametrize(
    ("path", "form", "until", "held", "place", "what"),
    [
        ("data/chta.jsonl", "auto", "0.33", "../book/rows", "4:33", "nothing at data/chta.jsonl"),
        ("data", "pairs", "0.33", "../book/rows", "4:47", "these rows do not fit here"),
        ("data", "auto", "0", "../book/rows", "4:62", "data.curriculum.until"),
        ("data", "auto", "1.01", "../book/rows", "4:62", "data.curriculum.until"),
        ("../book/rows", "auto", "1", "../book/rows", "5:30", "is trained on as well"),
    ],
)
def test_a_curriculum_is_checked_like_the_rest(
    path: str, form: str, until: str, held: str, place: str, what: str
) -> None:
    Path("r.yaml").write_text(EARLY % (path, form, until, held))
    with pytest.raises(RecipeError) as caught:
        load_recipe(Path("r.yaml"))
    (problem,) = caught.value.problems
    assert problem.where == f"r.yaml:{place}" and what in problem.what


def test_find_path_says_what_is_missing(folder: Path) -> None:
    assert find_path("rows/more.jsonl", beside=Path("../book/r.yaml")) == Path("../book/rows/more.jsonl")
    with pytest.raises(RecipeError, match="nothing at rows/none"):
        find_path("rows/none", beside=Path("../book/r.yaml"))
    with pytest.raises(RecipeError):
        find_path("a\0b", beside=Path("../book/r.yaml"))
    with pytest.raises(RecipeError):
        find_path("x" * 5000, beside=Path("../book/r.yaml"))


@pytest.mark.parametrize("stage", ["sft", "pretrain"])
def test_word_files_are_found_like_data_and_told_like_data(folder: Path, stage: str) -> None:
    (folder / "book" / "rows" / "bad.words").write_text("darn\n")
    text = f"stage: {stage}\nmodel: {{{'base: you/base' if stage == 'sft' else 'hidden_size: 32'}}}\n" + (
        "data: {train: [{path: more.jsonl}], clean: {words: WORDS}}\n"
        "train: {epochs: 1, steps: null}\noutput: runs/x\nroot: rows\n"
    )
    recipe = Path("../book/r.yaml")
    for written, found in (
        ("bad.words", "../book/rows/bad.words"),
        ("[bad.words]", ["../book/rows/bad.words"]),
        ("[]", []),
    ):
        recipe.write_text(text.replace("WORDS", written))
        assert load_recipe(recipe).recipe.data.clean.words == found  # type: ignore[attr-defined]
    recipe.write_text(text.replace("WORDS", "bad.wrds"))
    with pytest.raises(RecipeError, match=r"r.yaml:3:.*nothing at bad.wrds\n.*bad.words"):
        load_recipe(recipe)
