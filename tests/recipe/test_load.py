"""What a recipe file becomes, and that every slip in one is refused where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligner.errors import RecipeError
from aligner.recipe.load import LoadedRecipe, complete_yaml, load_recipe
from aligner.recipe.ppo import PpoRecipe
from aligner.recipe.stages import RECIPES, SftRecipe
from tests.recipe.complete import COMPLETE, FREE_NAMES, write_complete

SMALL = """\
stage: sft
model: {base: you/base}
data:
  train: [{path: train.jsonl}]
train: {epochs: 1}
output: runs/x
"""
FUZZ = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_complete(tmp_path)
    return tmp_path


def load_text(text: str, overrides: tuple[str, ...] = (), **kwargs: object) -> LoadedRecipe:
    Path("r.yaml").write_text(text, encoding="utf-8")
    return load_recipe(Path("r.yaml"), overrides, **kwargs)  # type: ignore[arg-type]


def mistakes(text: str, overrides: tuple[str, ...] = (), **kwargs: object) -> list[tuple[str, str, str]]:
    with pytest.raises(RecipeError) as caught:
        load_text(text, overrides, **kwargs)
    return [(problem.where, problem.what, problem.remedy) for problem in caught.value.problems]


@pytest.mark.parametrize("stage", COMPLETE)
def test_a_complete_recipe_loads_and_its_complete_text_gives_the_same_recipe(stage: str) -> None:
    loaded = load_recipe(Path(f"{stage}-complete.yaml"))
    assert type(loaded.recipe) is RECIPES[stage]
    assert load_text(loaded.text).recipe == loaded.recipe
    assert loaded.text.startswith(f"stage: {stage}\n")
    assert complete_yaml(loaded.recipe) == loaded.text


def test_a_reward_run_with_a_head_can_be_run_again_from_its_own_recipe(folder: Path) -> None:
    given = yaml.safe_load(SMALL) | {"stage": "reward"}
    (folder / "reward.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    (folder / "again.yaml").write_text(
        complete_yaml(load_recipe(Path("reward.yaml")).recipe), encoding="utf-8"
    )
    assert load_recipe(Path("again.yaml")).recipe == load_recipe(Path("reward.yaml")).recipe


@pytest.mark.parametrize("key", ["beta: 0.3", "nll_coef: 0.1"])
def test_what_is_of_the_likelihood_is_refused_for_a_head(folder: Path, key: str) -> None:
    (folder / "reward.yaml").write_text(SMALL.replace("sft", "reward") + key + "\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="score: likelihood"):
        load_recipe(Path("reward.yaml"))


def test_defaults_are_filled_in_and_whole_numbers_serve_as_numbers() -> None:
    loaded = load_text(SMALL)
    assert isinstance(loaded.recipe, SftRecipe)
    assert loaded.recipe.train.rows_per_step == 32
    assert isinstance(loaded.recipe.train.epochs, float)
    assert "  schedule: cosine\n" in loaded.text


def test_a_value_can_be_traced_to_its_line() -> None:
    loaded = load_text(SMALL, ("train.steps=null",))
    assert loaded.where("data.train.0.path") == "r.yaml:4:18"
    assert loaded.where("train.steps") == "-s train.steps"
    assert loaded.where("data.train.0.weight") == "r.yaml:4:11"  # a default: the entry around it
    assert loaded.where("sampling.temperature") == "r.yaml:1:1"


@pytest.mark.parametrize(
    ("old", "new", "where", "what", "remedy"),
    [
        ("output:", "outptu:", "6:1", 'unknown key "outptu"', 'did you mean "output"?'),
        ("epochs: 1", "epochs: 1, rank: 4", "5:20", 'unknown key "train.rank"', 'it belongs at "model.lora.rank"'),
        ("epochs: 1", "epochs: 1, zzz: 4", "5:20", 'unknown key "train.zzz"', "valid: epochs, steps, rows_per_step"),
        ("epochs: 1", "epochs: '1'", "5:17", 'train.epochs is text, not a number: "1"', "write epochs: 1 without quotes"),
        ("epochs: 1", "steps: '16'", "5:16", 'train.steps is text, not a whole number: "16"', "write steps: 16 without quotes"),
        ("epochs: 1", "steps: 1_000", "5:16", "train.steps is text", "write steps: 1000 without quotes"),
        ("epochs: 1", "steps: 4.0", "5:16", "train.steps must be a whole number, not 4.0", "write steps: 4"),
        ("epochs: 1", "steps: 4.5", "5:16", "train.steps must be a whole number, not 4.5", ""),
        ("epochs: 1", "steps: true", "5:16", "train.steps must be a whole number, not true", ""),
        ("epochs: 1", "epochs: -1", "5:17", "train.epochs = -1 is out of range", "it must be more than 0"),
        ("epochs: 1", "epochs: .inf", "5:17", "train.epochs = inf is not finite", "write a number"),
        ("epochs: 1", "epochs: .nan", "5:17", "train.epochs = nan is not finite", "write a number"),
        ("epochs: 1", "epochs: lots", "5:17", 'train.epochs must be a number, not the text "lots"', ""),
        ("epochs: 1", "epochs: 1, schedule: cosin", "5:30", 'train.schedule = "cosin" is not', 'did you mean "cosine"?'),
        ("epochs: 1", "epochs: 1, schedule: 7", "5:30", "train.schedule = 7 is not", "it takes cosine, linear, constant"),
        ("epochs: 1", "epochs: 1, steps: 2", "5:1", "train: give either epochs or steps", "null takes a key out"),
        ("epochs: 1", "epochs: 1, rows_per_step: 9, rows_per_device: 4", "5:1", "train: rows_per_step = 9 must be a multiple of rows_per_device = 4; nearest: 8 or 12", ""),
        ("train: {epochs: 1}", "train: 3", "5:8", "train must be keys and values (epochs, steps", "write train: {epochs: ...}"),
        ("train: {epochs: 1}", "train:", "5:7", "train must be keys and values", ""),
        ("train: {epochs: 1}\n", "", "1:1", 'missing key "train"', "it takes keys and values (epochs"),
        ("output: runs/x\n", "", "1:1", 'missing key "output"', "run folder"),
        ("output: runs/x", "output: 12", "6:9", "output must be text, not 12", 'put it in quotes: "12"'),
        ("output: runs/x", "output: [a]", "6:1", "output must be text, not a list", ""),
        ("[{path: train.jsonl}]", "{path: train.jsonl}", "4:3", "data.train must be a list of entries", "put a dash before each entry"),
        ("[{path: train.jsonl}]", "[]", "4:3", '"data.train" is empty', "give at least one"),
        ("[{path: train.jsonl}]", "[{cap: 3}]", "4:11", 'missing key "data.train.0.path"', "file, folder or glob"),
        ("path: train.jsonl", "path: [train.jsonl, 4]", "4:32", "data.train.0.path.1 must be text, not 4", 'put it in quotes: "4"'),
        ("path: train.jsonl", "path: []", "4:12", '"data.train.0.path" is empty', "give at least one file"),
        ("base: you/base", "base: you/base, merge: yes", "2:32", 'model.merge is text, not true or false: "yes"', "write merge: true without quotes"),
        ("base: you/base", "base: you/base, lora: {targets: 5}", "2:41", "model.lora.targets = 5 is not one of", "it takes all-linear or a list of words"),
        ("stage: sft", "stage: sfft", "1:8", 'unknown stage "sfft"', 'did you mean "sft"?'),
        ("stage: sft", "stage: quiz", "1:8", 'unknown stage "quiz"', "valid: pretrain, sft, reward"),
        ("stage: sft", "stage: [sft]", "1:1", "stage must be a word", ""),
        ("stage: sft\n", "", "1:1", 'missing key "stage"', "begin with stage: sft"),
        ("stage: sft", "stage: sft\nseed: 4294967296", "2:7", "seed = 4294967296 is out of range", "it must be less than 4.29497e+09"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_place_and_remedy(
    old: str, new: str, where: str, what: str, remedy: str
) -> None:
    assert SMALL.count(old) == 1
    ((got_where, got_what, got_remedy),) = mistakes(SMALL.replace(old, new))
    assert got_where == f"r.yaml:{where}"
    assert what in got_what
    assert remedy in got_remedy


def test_all_mistakes_are_told_at_once_from_top_to_bottom() -> None:
    text = SMALL.replace("you/base}", "./no/such/folder, lora: {rank: '4'}}")
    text = text.replace("epochs: 1", "epoch: -1, schedule: bent").replace("output", "outputs")
    found = mistakes(text, ("seed=x",))
    assert [where for where, _, _ in found] == [
        "r.yaml:2:15", "r.yaml:2:46", "r.yaml:5:9", "r.yaml:5:16", "r.yaml:5:30", "r.yaml:6:1", "-s seed",
    ]  # fmt: skip


def test_the_words_of_pydantic_are_never_shown() -> None:
    text = SMALL.replace("epochs: 1", "epochs: x, steps: {}, schedule: 1, warmup_share: [], precision: null")
    told = " ".join(f"{what} {remedy}" for _, what, remedy in mistakes(text)).lower()
    assert not any(
        word in told for word in ("pydantic", "input should", "valid integer", "dictionary", "literal")
    )


def test_a_file_that_is_no_recipe_is_refused(folder: Path) -> None:
    assert mistakes("") == [("r.yaml:1:1", "not a recipe", "a recipe begins with a line such as stage: sft")]
    assert mistakes("- a\n- b\n")[0][:2] == ("r.yaml:1:1", "not a recipe")
    for path, what in ((Path("sft-complet.yaml"), "no such recipe"), (folder, "this is a folder")):
        with pytest.raises(RecipeError, match=what):
            load_recipe(path)
    with pytest.raises(RecipeError, match=r'did you mean "sft-complete.yaml"'):
        load_recipe(Path("sft-complet.yaml"))
    Path("r.yaml").write_bytes(b"stage: sft\nseed: \xff\n")
    with pytest.raises(RecipeError, match="r.yaml:2: not UTF-8 text"):
        load_recipe(Path("r.yaml"))


def test_the_command_for_another_stage_names_the_right_one() -> None:
    assert mistakes(SMALL, stage="ppo") == [
        ("r.yaml:1:8", "this recipe's stage is sft, not ppo", "run it with: aligner sft r.yaml")
    ]
    with pytest.raises(RecipeError, match="aligner run pipeline-complete.yaml"):
        load_recipe(Path("pipeline-complete.yaml"), stage="sft")


def test_crossed_fields_of_every_stage_are_checked() -> None:
    for stage, old, new, what in (
        ("pretrain", "heads: 4", "heads: 5", "model: hidden_size = 64 must be a multiple of heads = 5"),
        ("pretrain", "kv_heads: 2", "kv_heads: 3", "model: heads = 4 must be a multiple of kv_heads = 3"),
        (
            "pretrain",
            "    rows: 20",
            "    rows: 20\n    sources: [{path: held.jsonl}]",
            "give either rows or sources",
        ),
        ("ppo", "minibatches: 4", "minibatches: 3", "must be a multiple of minibatches = 3"),
        (
            "ppo",
            '  - function: "judges:politeness"\n',
            "  - ",
            "reward.1: give one of model, function, rules and http",
        ),
        ("evaluate", "reference: before", "reference: befor", '"befor" is not among models: before, after'),
    ):
        text = COMPLETE[stage]
        assert text.count(old) == 1
        new_text = text.replace(old, new).replace("  -     dense", "  - dense")
        assert [what in got for _, got, _ in mistakes(new_text)] == [True], (stage, new)


def test_recipes_are_frozen() -> None:
    recipe = load_recipe(Path("ppo-complete.yaml")).recipe
    assert isinstance(recipe, PpoRecipe)
    with pytest.raises(ValueError, match="frozen"):
        recipe.ppo.clip = 9.0  # type: ignore[misc]


def keys_of(text: str) -> Iterator[tuple[yaml.Node, str]]:
    """Every key node that is the recipe's own word, found by PyYAML."""

    def walk(node: yaml.Node, parent: str) -> Iterator[tuple[yaml.Node, str]]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if parent not in FREE_NAMES:
                    yield key, key.value
                yield from walk(value, "" if parent in FREE_NAMES else key.value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                yield from walk(item, "")

    yield from walk(yaml.compose(text), "")


def slips(key: str) -> set[str]:
    """Typos of one edit: a letter left out, doubled, or swapped with the next."""
    out = {key[:i] + key[i + 1 :] for i in range(len(key))}
    double = {key[: i + 1] + key[i:] for i in range(len(key))}
    swapped = {key[:i] + key[i + 1] + key[i] + key[i + 2 :] for i in range(len(key) - 1)}
    return (out | double | swapped) - {key, ""}


@pytest.mark.parametrize("stage", COMPLETE)
def test_every_slip_in_every_key_is_refused_where_it_stands(stage: str) -> None:
    text, tried = COMPLETE[stage], 0
    for node, key in keys_of(text):
        for slip in sorted(slips(key))[:: max(1, len(key) // 2)]:
            mark = node.start_mark
            broken = text[: mark.index] + slip + text[mark.index + len(key) :]
            if key == "stage" and mark.line == 0:
                assert mistakes(broken)[0][1] == 'missing key "stage"'
                continue
            told = mistakes(broken)
            here = [what for where, what, _ in told if where == f"r.yaml:{mark.line + 1}:{mark.column + 1}"]
            if slip == "stage":  # from "stages": now it is there twice
                assert here == ['the key "stage" is given twice']
                continue
            if slip == "roo":  # as near to "root" as to "rloo", which is then missing as well
                assert [what for _, what, _ in told] == ['missing key "rloo"', 'unknown key "roo"']
                continue
            assert len(told) == 1 and here and here[0].startswith("unknown key"), (key, slip, told)
            tried += 1
    assert tried > 15


def test_every_key_of_every_recipe_class_is_in_the_complete_recipes() -> None:
    for stage, path in write_complete(Path()).items():
        recipe = load_recipe(path).recipe
        unset = {name for name in type(recipe).model_fields if name not in recipe.model_fields_set}
        assert unset <= {"root"}, stage  # goes into the paths, see test_check.py


@FUZZ
@given(st.text(alphabet="stage: fpo\n-[]{},'\"#&*!|>%@`~?0123456789.eE+\t<=", max_size=80))
def test_any_text_is_a_recipe_or_a_recipe_error(text: str) -> None:
    for whole in (text, f"stage: sft\n{text}"):
        try:
            load_text(whole)
        except RecipeError as error:
            assert all(problem.where and problem.what for problem in error.problems)


@FUZZ
@given(st.sampled_from(sorted(COMPLETE)), st.floats(0, 1), st.integers(0, 12), st.text(max_size=6))
def test_any_damaged_recipe_is_a_recipe_or_a_recipe_error(stage: str, at: float, cut: int, put: str) -> None:
    text = COMPLETE[stage]
    start = int(at * len(text))
    try:
        loaded = load_text(text[:start] + put + text[start + cut :])
    except RecipeError as error:
        assert all(problem.where.startswith("r.yaml") and problem.what for problem in error.problems)
    else:
        assert load_text(loaded.text).recipe == loaded.recipe
