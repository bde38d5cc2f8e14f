"""Which layers of a model are computed the fast way."""

from __future__ import annotations

from typing import TypeVar

from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from aligner.models.linear import FastLinear, FastLora
from aligner.models.norms import FastNorm, is_rms_norm

Model = TypeVar("Model", bound=nn.Module)


def hasten(model: Model) -> Model:
    """The model itself; linear layers and RMS norms are fast where they are plain: not quantised, no LoRA variant.

    Only the class of a layer changes: its parameters, their names, saving and what else PEFT does with it stay as they
    are. Calling it twice does no harm, and a copy of the model is fast too. Results are the same up to rounding.
    """
    for module in list(model.modules()):
        if type(module) is LoraLinear and type(module.base_layer) in (nn.Linear, FastLinear):
            module.__class__ = FastLora
        elif type(module) is nn.Linear:
            module.__class__ = FastLinear
        elif type(module) is not FastNorm and is_rms_norm(module):
            module.__class__ = FastNorm
    return model
