"""Every recipe that ships loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner.errors import RecipeError
from aligner.planning import planned_stages
from aligner.recipe.load import find_path, load_recipe
from aligner.recipe.stages import PipelineRecipe

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted(ROOT.glob("recipes/**/*.y*ml"))

# They start from a finished run, which a fresh clone has not.
AFTER = {"desk-gold.yaml": "runs/desk/"} | dict.fromkeys(
    ("gold-check.yaml", "kl-optimum.yaml", "alignment-tax.yaml", "over-optimisation.yaml", "equal-kl.yaml"),
    "runs/quickstart/",
)


def test_the_recipes_of_the_readme_are_there() -> None:
    assert {"quickstart.yaml", "desk.yaml", "flan.yaml"} <= {path.name for path in RECIPES}


@pytest.mark.parametrize("path", [path.relative_to(ROOT) for path in RECIPES], ids=str)
def test_every_recipe_loads_and_so_do_its_stages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    try:
        recipe = load_recipe(path, in_pipeline=True).recipe
        for entry in recipe.stages.values() if isinstance(recipe, PipelineRecipe) else []:
            load_recipe(find_path(entry.use, beside=path), changes=entry.set, in_pipeline=True)
    except RecipeError as error:
        if path.name in AFTER and all(f"no folder {AFTER[path.name]}" in p.what for p in error.problems):
            return
        missing = all("root: no folder ../shared/realdata" in problem.what for problem in error.problems)
        if "real" in path.parts and missing:
            pytest.skip("the real data of this recipe is not here")
        raise


@pytest.mark.parametrize("stage", ["dpo", "kto", "grpo", "rloo", "rejection"])
def test_one_word_puts_a_baseline_where_ppo_stood(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    word = f"stages.ppo.use={stage}.yaml"
    planned = {one.name: one.recipe for one in planned_stages(Path("recipes/quickstart.yaml"), [word])}
    assert planned["ppo"].stage == stage and planned["ppo"].output == "runs/quickstart/ppo"
    assert planned["ppo"].model.base == "@sft" and planned["ppo"].reward[0].model == "@reward"  # type: ignore[attr-defined]
