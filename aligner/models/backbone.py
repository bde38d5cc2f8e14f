"""One frozen backbone under several roles: the same weights in memory, and an adapter for each role.

A role is a module tree of its own, so adapters are never switched; what is frozen in it are the backbone's own layers.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from aligner.models.adapters import Task
from aligner.models.load import LoadedModel, check_task, load_tokenizer
from aligner.models.sources import Source, base_source, check_harmless, loading, weights_sha256
from aligner.models.wrapped import device_of, text_config, unwrapped

_QUANTISED = ("is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit")  # what PEFT asks a model


@dataclass(frozen=True)
class Backbone:
    """A plain language model whose frozen weights others may stand on.

    `base` and `revision` name it as `LoadedModel` does; `merged`: its weights lie on no disk under that name.
    """

    model: PreTrainedModel
    base: str
    revision: str | None
    merged: bool

    def language_model(self) -> PreTrainedModel:
        """A model of its own over the backbone's layers, ready for an adapter."""
        return bare(self.model)

    def scorer(self) -> PreTrainedModel:
        """The same with a score head in place of the language-model head; it says 0 until an adapter brings its own."""
        model = self.language_model()
        config = copy.deepcopy(model.config)
        config.num_labels = 1
        config.__dict__.pop("quantization_config", None)  # the layers are quantised already
        with torch.device("meta"):
            scorer = AutoModelForSequenceClassification.from_config(config)
        setattr(scorer, scorer.base_model_prefix, model.base_model)
        scorer.score = nn.Linear(text_config(model).hidden_size, 1, bias=False, device=device_of(model))
        nn.init.zeros_(scorer.score.weight)
        for name in _QUANTISED:
            setattr(scorer, name, getattr(model, name, False))
        return scorer.eval()

    def unlike(self, adapter: Source, task: Task) -> str | None:
        """Why a role cannot stand on this backbone; None where it is an adapter over the very same weights.

        The same place holds the same weights. Others are compared bit by bit with the file; quantised ones, which a
        file does not have, by the hash of what they were made from.
        """
        if not adapter.is_adapter:
            return "it was trained whole"
        base = base_source(adapter)
        return self._other_weights(base, task) or self._other_tokens(load_tokenizer(adapter, base))

    def _other_weights(self, base: Source, task: Task) -> str | None:
        if not self.merged and (base.name, base.revision) == (self.base, self.revision):
            return None
        if not base.is_folder:
            return f"its adapter is over {base.name}"
        if getattr(self.model, "is_quantized", False):
            own = Path(self.base)
            same = own.is_dir() and weights_sha256(own) == weights_sha256(Path(base.name))
            return None if same else f"its adapter is over {base.name}"
        other = self._first_other(Path(base.name), task)
        return f"its adapter is over {base.name}, which differs in {other}" if other else None

    def _other_tokens(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        pad, rows = tokenizer.pad_token_id, self.model.get_input_embeddings().num_embeddings
        fits = pad is not None and pad != tokenizer.eos_token_id and len(tokenizer) <= rows
        return None if fits else "its tokenizer needs more embeddings than the backbone has"

    def _first_other(self, folder: Path, task: Task) -> str | None:
        """The first weight that is another one in the folder's files; only those that the task reads are compared."""
        own: dict[str, Tensor] = dict(self.model.state_dict(keep_vars=True))
        trunk = f"{self.model.base_model_prefix}."
        needed = {name for name in own if name.startswith(trunk)}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in list(file.keys()):
                    if task == "SEQ_CLS" and not name.startswith(trunk):
                        continue
                    if name not in own or not self._same(own[name], file.get_tensor(name)):
                        return name
                    needed.discard(name)
        return min(needed, default=None)

    def _same(self, own: Tensor, stored: Tensor) -> bool:
        """Whether all numbers are the same, but for the pad token's: where it is a new one, they are random."""
        if own.shape != stored.shape:
            return False
        same = own.detach() == stored.to(own.device, own.dtype)
        ends = (self.model.get_input_embeddings(), self.model.get_output_embeddings())
        if any(end is not None and own is end.weight for end in ends):
            same[self.model.config.pad_token_id] = True  # no real token sees it
        return bool(same.all())


def backbone_of(model: nn.Module, loaded: LoadedModel) -> Backbone:
    """The weights under the adapters of a frozen `model`, a copy of `loaded` or itself."""
    return Backbone(bare(model), loaded.base, loaded.base_revision, loaded.merged_base)


def bare(model: nn.Module) -> PreTrainedModel:
    """The plain model under a model's adapters, as a tree of its own over the same frozen layers."""
    under: dict[int, object] = {}
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            under[id(module)] = module.get_base_layer()
        elif isinstance(module, ModulesToSaveWrapper):
            under[id(module)] = module.original_module
    plain = copy.deepcopy(unwrapped(model), frozen_parts(model) | under)
    plain.__dict__.pop("peft_config", None)  # PEFT would take it for adapted
    return plain


def frozen_parts(model: nn.Module) -> dict[int, object]:
    """What a deep copy of a model need not copy, by id: frozen weights, and layers that have no others.

    Whole layers, since those of bitsandbytes keep their numbers beside their weights.
    """
    parts: dict[int, object] = {
        id(weight): weight for weight in model.parameters() if not weight.requires_grad
    }
    for module in model.modules():
        weights = list(module.parameters())
        if weights and not any(module.children()) and not any(weight.requires_grad for weight in weights):
            parts[id(module)] = module
    return parts


def stand_on(backbone: Backbone, adapter: Source, task: Task) -> LoadedModel:
    """A trained adapter over the backbone, frozen and in eval mode, as `load_trained` and `load_scorer` load it."""
    check_harmless(adapter)
    check_task(adapter, task)
    base = base_source(adapter)
    model = backbone.scorer() if task == "SEQ_CLS" else backbone.language_model()
    tokenizer = load_tokenizer(adapter, base)
    model.config.pad_token_id = tokenizer.pad_token_id
    with loading(adapter):
        adapted = PeftModel.from_pretrained(model, adapter.name, revision=adapter.revision)
    adapted.eval().requires_grad_(False)
    return LoadedModel(adapted, tokenizer, adapter.identity, base.name, base.revision)


def trainable_copy(adapted: PeftModel, backbone: Backbone) -> PeftModel:
    """A role on the backbone once more, its adapter a copy that can be trained."""
    shared = frozen_parts(backbone.model)
    again = copy.deepcopy(adapted, shared)
    for weight in again.parameters():
        weight.requires_grad_(id(weight) not in shared)
    return again
