"""What `aligner check` says of reward models: whether their frozen weights will be the policy's, and what they read.

Told from recipes, manifests and adapters' settings; the run itself compares the weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

from aligner.errors import RunError
from aligner.models.sources import loading, resolve_source
from aligner.models.tokenizer import PAD
from aligner.models.weights import ADAPTER_CONFIG, has_config, model_in
from aligner.planning import PlannedStage, is_recipe, named_stage
from aligner.recipe.model import ModelSpec
from aligner.recipe.plan import PlanRow
from aligner.recipe.ppo import RewardedRecipe
from aligner.recipe.stage import StageRecipe, TunedRecipe
from aligner.run.manifest import Manifest
from aligner.start import Start

SHARED, APART = "on the policy's backbone", "a model of its own"


def reward_rows(stage: PlannedStage, start: Start, planned: Sequence[PlannedStage]) -> list[PlanRow]:
    """A row for each reward model of a stage."""
    assert isinstance(stage.recipe, RewardedRecipe)
    makers = _Makers(stage, planned)
    policy = makers.frozen(stage.recipe.model)
    return [
        PlanRow(f"reward.{number}", *makers.told(source.model, policy, start))
        for number, source in enumerate(stage.recipe.reward)
        if source.model
    ]


@dataclass(frozen=True)
class _Makers:
    """Who makes, or made, the models that a stage names."""

    stage: PlannedStage
    planned: Sequence[PlannedStage]

    def told(self, model: str, policy: str, start: Start) -> tuple[str, str]:
        """Value and reason of a reward model's row; `policy` are the policy's frozen weights."""
        own = self.under(model)
        if own is None:
            value, why = APART, "it was trained whole"
        elif own == policy:
            value, why = SHARED, "its adapter lies over the same weights"
        else:
            value, why = APART, f"its adapter lies over {own}, the policy is over {policy}"
        return value, f"{why}; it reads texts, by its own tokenizer" if self._reads_texts(
            model, start
        ) else why

    def under(self, base: str) -> str | None:
        """The frozen weights under a model; None where it is no adapter. Equal names, equal weights."""
        spec = self._spec(base)
        if spec is not None:
            is_adapter = spec.lora is not None or (not spec.merge and self.under(spec.base) is not None)
            return self.frozen(spec) if is_adapter else None
        config = Path(self._place(base)) / ADAPTER_CONFIG
        return str(json.loads(config.read_text())["base_model_name_or_path"]) if config.is_file() else None

    def frozen(self, spec: ModelSpec) -> str:
        """The weights that stay as they are where training starts so: those under the base's adapter, or the base's."""
        under, place = self.under(spec.base), self._place(spec.base)
        if under is None:
            return place
        return f"{under} merged with {place}" if spec.merge else under

    def _spec(self, base: str) -> ModelSpec | None:
        """What a model that a recipe makes starts from; None where it starts from nothing, or nothing is known."""
        recipe: StageRecipe | None = next(iter(self._recipes(base)), None)
        if isinstance(recipe, TunedRecipe):
            return recipe.model
        try:
            made = None if recipe else Manifest.read(Path(base).expanduser()).recipe.get("model")
        except (RunError, OSError):
            return None
        return ModelSpec.model_validate(made) if isinstance(made, dict) and "base" in made else None

    def _recipes(self, base: str) -> Iterator[StageRecipe]:
        if base.startswith("@"):
            yield from (one.recipe for one in self.planned if one.name == base[1:])
        elif is_recipe(base):
            yield named_stage(base, self.stage).recipe

    def _place(self, base: str) -> str:
        """Where a model lies or will lie, one spelling for one place."""
        made = next(iter(self._recipes(base)), None)
        folder = Path(made.output if made else base).expanduser()
        if made or folder.exists():
            return str((folder / "model" if made else model_in(folder)).resolve())
        return base

    def _reads_texts(self, model: str, start: Start) -> bool:
        """Whether a model that is there has another vocabulary; a pad token is given to those that have none."""
        place = Path(self._place(model))
        if not has_config(place):
            return False
        source = resolve_source(str(place))
        with loading(source):
            own = AutoTokenizer.from_pretrained(source.name, trust_remote_code=False).get_vocab()
        policy = start.tokenizer.get_vocab()
        return {t: i for t, i in own.items() if t != PAD} != {t: i for t, i in policy.items() if t != PAD}
