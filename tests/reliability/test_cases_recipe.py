"""Cases 1 to 4 of forty ways in which alignment runs have failed elsewhere: recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner.errors import RecipeError
from aligner.recipe.load import load_recipe
from aligner.recipe.ppo import PpoSpec
from aligner.recipe.stages import SftRecipe

SFT = """\
stage: sft
model: {base: you/base, lora: {rank: 8}}
data:
  train: [{path: train.jsonl}]
train: {epochs: 1}
output: runs/x
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text("{}\n")
    return tmp_path


def load(old: str = "", new: str = "") -> SftRecipe:
    assert old in SFT
    Path("r.yaml").write_text(SFT.replace(old, new) if old else SFT)
    recipe = load_recipe(Path("r.yaml"), ()).recipe
    assert isinstance(recipe, SftRecipe)
    return recipe


def told(old: str, new: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(old, new)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_case_01_misspelt_key() -> None:
    wrong = told("epochs: 1", "epochs: 1, learnign_rate: 5.0e-6")
    assert wrong.startswith('r.yaml:5:20: unknown key "train.learnign_rate"')
    assert 'did you mean "learning_rate"?' in wrong
    assert 'did you mean "rank"?' in told("rank: 8", "rnak: 8")  # nested
    assert 'it belongs at "model.lora.rank"' in told("epochs: 1", "epochs: 1, rank: 8")  # of another section
    assert "kl_coef" in told("output: runs/x", "output: runs/x\nkl_coef: 0.1")  # of another stage


def test_case_02_number_read_as_text() -> None:
    assert load("epochs: 1", "epochs: 1, learning_rate: 1e-5").train.learning_rate == 1e-5
    assert "without quotes" in told("epochs: 1", 'steps: "8"')
    assert "without quotes" in told("epochs: 1", "epochs: 1, learning_rate: '1e-5'")
    assert "true or false" in told("base: you/base", "base: you/base, merge: 'false'")
    assert "ten" in told("epochs: 1", "steps: ten")


@pytest.mark.parametrize(
    "wrong",
    [
        "learning_rate: .nan", "learning_rate: -1", "learning_rate: .inf", "log_every: 0", "rows_per_step: 2.5",
        "rows_per_step: 9, rows_per_device: 4", "warmup_share: 2", "checkpoint_every: 0", "steps: 4", "rows_per_step: 0",
    ],
)  # fmt: skip
def test_case_03_impossible_values(wrong: str) -> None:
    assert "r.yaml:5" in told("epochs: 1", f"epochs: 1, {wrong}")
    assert "out of range" in told("epochs: 1", "epochs: -3")


def test_case_03_impossible_values_that_cross_fields() -> None:
    with pytest.raises(ValueError, match="minibatches"):
        PpoSpec(steps=1, prompts_per_step=10, minibatches=3)


@pytest.mark.parametrize(
    ("new", "word"),
    [
        ("output: runs/x\noutput: runs/y", "given twice"),
        ("output: !!python/object/apply:os.system ['touch owned']", "a tag"),
        ("output: &a runs/x", "an anchor"),
        ("output: *a", "an alias"),
        ("output: runs/x\nseed: no", "seed must be a whole number"),
        ("output: runs/x\nseed: 12:30:00", "seed"),
    ],
)
def test_case_04_hostile_yaml(new: str, word: str, folder: Path) -> None:
    assert word in told("output: runs/x", new)
    assert not (folder / "owned").exists()


def test_case_04_no_interpolation_no_octal_no_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/secret")
    assert load("runs/x", "'${oc.env:HOME}'").output == "${oc.env:HOME}"
    assert load("output: runs/x", "output: runs/x\nseed: 08").seed == 8  # YAML 1.2: a number like any other
    bomb = "a: &a [x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(50))
    assert "an anchor" in told("output: runs/x", "output: runs/x\n" + bomb)
    assert "too large for a recipe" in told("output: runs/x", "output: runs/x\n# " + "x" * 1_000_000)
