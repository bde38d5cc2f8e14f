"""Muon for the matrices, AdamW for everything else, as one optimiser that schedules and checkpoints like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from aligner.recipe.training import TrainSpec

OptimizerChoice = tuple[Callable[[], Callable[..., Optimizer]], dict[str, float]]


class MuonAdamW(Optimizer):
    """Two optimisers in one coat: shared `param_groups` for the schedule, one `state` for the checkpoint.

    Muon orthogonalises the update of a matrix (Jordan et al. 2024, kellerjordan.github.io/posts/muon); its step is
    scaled to AdamW's usual size (Liu et al. 2025, arXiv:2502.16982, eq. 4), so one learning rate serves both.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        others: list[nn.Parameter],
        *,
        lr: float,
        beta2: float,
        weight_decay: float,
    ) -> None:
        decayed = [p for p in others if p.ndim > 1]
        plain = [p for p in others if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.muon = Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.adamw = AdamW([g for g in groups if g["params"]], lr=lr, betas=(0.9, beta2), fused=True)
        super().__init__([*matrices, *others], {"lr": lr})
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]
        self._share()

    def _share(self) -> None:
        """One state, and groups in which the schedule writes the learning rates for all."""
        self.muon.param_groups, self.adamw.param_groups = self.param_groups[:1], self.param_groups[1:]
        self.muon.state = self.adamw.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both; `closure` re-evaluates the loss first, as everywhere in torch."""
        loss = closure() if closure is not None else None
        self.muon.step()
        self.adamw.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        super().load_state_dict(state_dict)
        self._share()


def optimizer_choice(train: TrainSpec, *, beta2: float) -> OptimizerChoice | None:
    """What `optimizer_cls_and_kwargs` of a Trainer takes: our factory for muon, nothing for its own AdamW."""
    if train.optimizer == "adamw":
        return None
    return (lambda: muon_adamw), {
        "lr": train.learning_rate,
        "beta2": beta2,
        "weight_decay": train.weight_decay,
    }


def muon_adamw(model: nn.Module, *, lr: float, beta2: float, weight_decay: float) -> Optimizer:
    """Muon for the weights of hidden linear layers; AdamW for embeddings, norms, biases and heads."""
    matrices = hidden_matrices(model)
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    return MuonAdamW(matrices, others, lr=lr, beta2=beta2, weight_decay=weight_decay)


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Trainable 2-D weights of linear layers, without the output heads (and what is tied to them)."""
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    heads = {id(p) for name, module in model.named_modules() if _is_head(name) for p in module.parameters()}
    return [
        p
        for p in model.parameters()
        if p.requires_grad and p.ndim == 2 and id(p) in linear and id(p) not in embeddings | heads
    ]


def _is_head(name: str) -> bool:
    """Whether a module is an output head, by the names transformers gives them."""
    return any(part in {"lm_head", "embed_out", "score", "classifier"} for part in name.split("."))
