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
from aligner.models.adapters import modules_to_save
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

    def adapter_parameters(self, spec: ModelSpec) -> int:
        """Weights of LoRA matrices over every linear layer but the head, and of the modules trained whole."""
        lora = spec.lora or LoraSpec()
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self.config)
        head = model.get_output_embeddings()
        linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        low_rank = sum(lora.rank * (linear.in_features + linear.out_features) for linear in linears)
        whole = [model.get_submodule(path) for path in modules_to_save(model, lora)]
        return low_rank + sum(weight.numel() for module in whole for weight in module.parameters())

    def random_model(self) -> PreTrainedModel | None:
        """A model of this shape with random weights, or None where it is too large to build for a look."""
        if self.parameters > BUILT_BELOW:
            return None
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return AutoModelForCausalLM.from_config(self.config).to(device)


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
