"""What a stage would start from, without weights: a tokenizer and a model's shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from aligner.data.build import (
    build_documents,
)
from aligner.data.rows import Document
from aligner.errors import Problem, RecipeError
from aligner.models.adapters import attach_lora, trainable_parameters
from aligner.models.attention import choose_attention
from aligner.models.small import build_small
from aligner.models.sources import base_source, check_harmless, loading, resolve_source
from aligner.models.tokenizer import ensure_end, ensure_template, train_tokenizer
from aligner.planning import (
    PlannedStage,
    bases_of,
    is_recipe,
    named_stage,
)
from aligner.recipe.model import LoraSpec, ModelSpec
from aligner.recipe.stage import StageRecipe
from aligner.recipe.stages import PretrainRecipe
from aligner.stages.pretrain import tokenizer_texts

BUILT_BELOW = 200_000_000  # parameters


@dataclass(frozen=True)
class Start:
    """A model as far as it is known before its weights are: shape and tokenizer; `adapter`: it comes as one."""

    tokenizer: PreTrainedTokenizerBase
    config: PreTrainedConfig
    parameters: int
    adapter: bool = False

    @property
    def layers(self) -> int:
        """Transformer layers."""
        return int(self.config.num_hidden_layers)

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return int(self.config.hidden_size)

    @property
    def vocab_size(self) -> int:
        """Rows of the output layer."""
        return int(self.config.vocab_size)

    def trains_adapter(self, spec: ModelSpec) -> bool:
        """Whether an adapter is trained: a new one, or the one that the base comes as."""
        return spec.lora is not None or (self.adapter and not spec.merge)

    def shape(self, spec: ModelSpec | None) -> torch.nn.Module:
        """The model as it is trained, under its adapter where it has one; without weights."""
        with torch.device("meta"):
            return self.adapted(AutoModelForCausalLM.from_config(self.config), spec)

    def adapted(self, model: PreTrainedModel, spec: ModelSpec | None) -> torch.nn.Module:
        """`model` under the adapter that is trained over it, where one is; its base's own is taken for a usual one."""
        if spec is None or not self.trains_adapter(spec):
            return model
        return attach_lora(model, spec.lora or LoraSpec(), "CAUSAL_LM")

    def adapter_parameters(self, spec: ModelSpec) -> int:
        """Weights that are trained where an adapter is, and of the modules trained whole."""
        return sum(weight.numel() for weight in trainable_parameters(self.shape(spec)))

    def random_model(self) -> PreTrainedModel | None:
        """A model of this shape with random weights, or None where it is too large to build for a look."""
        if self.parameters > BUILT_BELOW:
            return None
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_config(self.config).to(device)
        choose_attention(model)
        return model


def start_of(stage: PlannedStage, known: Mapping[str, Start]) -> Start:
    """What a stage starts from: an earlier stage's model, a recipe's, a folder's or the Hub's."""
    if isinstance(stage.recipe, PretrainRecipe):
        return _fresh(stage.recipe)
    return _start(bases_of(stage.recipe)[0], stage, known)


def _fresh(recipe: PretrainRecipe) -> Start:
    documents: list[Document] = build_documents(recipe.data, seed=recipe.seed).train
    tokenizer = train_tokenizer(tokenizer_texts(documents), vocab_size=recipe.tokenizer.vocab_size)
    with torch.device("meta"):
        model = build_small(recipe.model, tokenizer)
    return Start(tokenizer, model.config, model.num_parameters())


def _start(base: str, stage: PlannedStage, known: Mapping[str, Start]) -> Start:
    if base.startswith("@"):
        if base[1:] not in known:
            raise RecipeError(
                Problem(str(stage.path), f'"{base}" names no earlier stage', "check the pipeline")
            )
        start = known[base[1:]]
    elif is_recipe(base):
        start = start_of(named_stage(base, stage), known)
    else:
        start = _stored(base)
    return replace(start, adapter=start.adapter or _has_lora(stage.recipe))


def _stored(base: str) -> Start:
    source = resolve_source(base)
    check_harmless(source)
    full = base_source(source) if source.is_adapter else source
    check_harmless(full)
    with loading(source):
        tokenizer = AutoTokenizer.from_pretrained(
            source.name, revision=source.revision, trust_remote_code=False
        )
        config = AutoConfig.from_pretrained(full.name, revision=full.revision, trust_remote_code=False)
    ensure_template(tokenizer)
    ensure_end(tokenizer)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return Start(tokenizer, config, model.num_parameters(), adapter=source.is_adapter)


def _has_lora(recipe: StageRecipe) -> bool:
    spec = getattr(recipe, "model", None)
    return isinstance(spec, ModelSpec) and spec.lora is not None
