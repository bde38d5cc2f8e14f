"""LoRA adapters through PEFT: attach, go on with, merge."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

from peft import (
    LoraConfig,
    PeftModel,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from aligner.errors import ModelError, Problem, nearest
from aligner.recipe.model import LoraSpec

Task = Literal["CAUSAL_LM", "SEQ_CLS"]
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def attach_lora(model: PreTrainedModel, spec: LoraSpec, task: Task) -> PeftModel:
    """A new adapter over the frozen model; for SEQ_CLS the score head is trained and saved with it."""
    check_lora(model, spec)
    config = LoraConfig(
        task_type=TaskType[task],
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=spec.targets,
        modules_to_save=modules_to_save(model, spec) or None,
    )
    return get_peft_model(model, config)


def check_lora(model: nn.Module, spec: LoraSpec) -> None:
    """ModelError for the layers and modules that `spec` names and the model does not have, for all of them at once."""
    problems: list[Problem] = []
    for check in (_check_targets, modules_to_save):
        try:
            check(model, spec)
        except ModelError as error:
            problems += error.problems
    if problems:
        raise ModelError(problems)


def _check_targets(model: nn.Module, spec: LoraSpec) -> None:
    """Each name must be that of a layer LoRA can adapt: its last part, or its dotted path's end."""
    if spec.targets == "all-linear":
        return
    paths = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding | Conv1D)
    ]
    _check_named("model.lora.targets", "layer", spec.targets, paths)


def modules_to_save(model: nn.Module, spec: LoraSpec) -> list[str]:
    """The whole paths of the modules the recipe names by their last part or their dotted path's end.

    PEFT alone would take "norm" for every path that ends so, `input_layernorm` included.
    """
    paths = [name for name, _ in model.named_modules() if name]
    _check_named("model.lora.modules_to_save", "module", spec.modules_to_save, paths)
    return [path for path in paths if any(_is_end(name, path) for name in spec.modules_to_save)]


def _check_named(place: str, what: str, wanted: list[str], paths: list[str]) -> None:
    """ModelError for the names that end no path, which PEFT would pass over in silence."""
    unknown = [name for name in wanted if not any(_is_end(name, path) for path in paths)]
    names = sorted({path.rpartition(".")[2] for path in paths})
    if unknown:
        raise ModelError(
            [Problem(place, f'no {what} is named "{name}"', nearest(name, names)) for name in unknown]
        )


def _is_end(name: str, path: str) -> bool:
    return bool(name) and f".{path}".endswith(f".{name}")


def continue_adapter(model: PreTrainedModel, config: LoraConfig, weights: Path, task: Task) -> PeftModel:
    """A saved adapter over `model`, for another task: a reward model that starts from the SFT adapter.

    Every LoRA tensor is copied by name; only a score head may be new.
    """
    config = copy.deepcopy(config)
    config.task_type, config.inference_mode = TaskType[task], False
    continued = get_peft_model(model, config)
    fresh = get_peft_model_state_dict(continued, save_embedding_layers=False)
    saved = load_file(weights)
    unfit = sorted(
        [name for name in fresh if "lora_" in name and name not in saved]
        + [n for n in saved if n not in fresh]
    )
    if unfit:
        fault = f"{len(unfit)} adapter tensors do not fit a {task} model, first {unfit[0]}"
        raise ModelError(Problem(str(weights), fault, "train that adapter without the language-model head"))
    set_peft_model_state_dict(continued, fresh | saved)
    return continued


def merge_adapter(model: PeftModel) -> PreTrainedModel:
    """The plain model with the adapter's update added to its weights, all of them trainable again."""
    return model.merge_and_unload().requires_grad_(True)


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What an optimiser should be given."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def backbone_tensors(model: PeftModel) -> dict[str, Tensor]:
    """The weights under the adapters, by the names the plain model gives them."""
    tensors = {}
    for name, tensor in model.get_base_model().state_dict().items():
        if "lora_" in name or ".modules_to_save." in name:
            continue
        tensors[name.replace(".base_layer.", ".").replace(".original_module.", ".")] = tensor
    return tensors
