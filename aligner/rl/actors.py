"""The roles of PPO over a language model: a policy with its critic, and the frozen reference."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aligner.errors import ModelError, Problem
from aligner.models.backbone import frozen_parts
from aligner.models.fast import hasten
from aligner.models.heads import ValueHead, ValueTrunk
from aligner.models.sample import response_logprobs, sample_responses
from aligner.recipe.ppo import PpoSpec
from aligner.rl.rollout import Rollout, passes
from aligner.rl.update import Evaluation


@dataclass(frozen=True)
class Drawing:
    """How responses are drawn, and so under which distribution every log-probability is taken."""

    max_new_tokens: int
    temperature: float
    eos_id: int
    pad_id: int
    autocast: bool = False  # bfloat16; log-probabilities stay float32


class LanguageActor:
    """A causal language model as PPO's policy, its value head reading the hidden state each token was drawn from.

    That is the policy's own, or that of `value_trunk` where the critic has one. The model is put into eval mode and
    stays there: dropout would make the policy another one at every pass.
    """

    def __init__(
        self, model: nn.Module, value_head: ValueHead, drawing: Drawing, *, entropy_gradient: bool = False
    ) -> None:
        self.model = hasten(model.eval())
        self.value_head = value_head
        self.value_trunk: ValueTrunk | None = None
        self.drawing = drawing
        self.entropy_gradient = entropy_gradient
        # Sampler and full pass give the same numbers. Not where activations are rounded: by autocast, or to the 8 bits
        # of LLM.int8, where an input that is off by 1e-7 may give the next step of 127.
        self.same_numerics = not drawing.autocast and not _has_int8(self.model)

    def sample(self, prompts: list[list[int]], rng: torch.Generator, *, with_values: bool = True) -> Rollout:
        """One response to each prompt, with the critic's values as it was drawn.

        Those of a critic with a trunk of its own take a pass more, and are left out where the update makes its own.
        """
        drawing = self.drawing
        drawn = sample_responses(
            self.model,
            prompts,
            max_new_tokens=drawing.max_new_tokens,
            temperature=drawing.temperature,
            eos_id=drawing.eos_id,
            pad_id=drawing.pad_id,
            generator=rng,
            autocast=drawing.autocast,
            value_head=self.value_head if with_values and self.value_trunk is None else None,
        )
        rollout = Rollout(
            prompts, drawn.ids_BR, drawn.mask_BR, drawn.logprobs_BR, drawn.finished_B, drawn.values_BR
        )
        if self.value_trunk is None or not with_values or not self.same_numerics:
            return rollout
        return replace(rollout, values_BR=self._values_in_parts(rollout))

    @torch.no_grad()
    def _values_in_parts(self, rollout: Rollout) -> Tensor:
        """What a trunk of its own says of a rollout, 0 on padding."""
        values_BR = torch.zeros_like(rollout.logprobs_BR)
        for episodes in passes(rollout, None):
            part = rollout.select(episodes)
            seen_BR = self._trunk_values(part.prompts, part.ids_BR, part.mask_BR)
            values_BR[episodes, : part.mask_BR.shape[1]] = torch.where(part.mask_BR, seen_BR, 0.0)
        return values_BR

    def _trunk_values(self, prompts: list[list[int]], ids_BR: Tensor, mask_BR: Tensor) -> Tensor:
        assert self.value_trunk is not None
        with torch.autocast(ids_BR.device.type, torch.bfloat16, enabled=self.drawing.autocast):
            hidden_BRD = self.value_trunk(prompts, ids_BR, mask_BR, self.drawing.pad_id)
        values_BR: Tensor = self.value_head(hidden_BRD.float())
        return values_BR

    def evaluate(self, prompts: list[list[int]], ids_BR: Tensor, mask_BR: Tensor) -> Evaluation:
        """Log-probabilities, entropies and values of given responses by one forward pass, and the critic's own one."""
        with torch.autocast(ids_BR.device.type, torch.bfloat16, enabled=self.drawing.autocast):
            seen = response_logprobs(
                self.model,
                prompts,
                ids_BR,
                mask_BR,
                temperature=self.drawing.temperature,
                pad_id=self.drawing.pad_id,
                value_head=self.value_head if self.value_trunk is None else None,
                entropy_gradient=self.entropy_gradient,
            )
        values_BR = seen.values_BR
        if values_BR is None:
            values_BR = self._trunk_values(prompts, ids_BR, mask_BR)
        return Evaluation(seen.logprobs_BR, seen.entropy_BR, values_BR)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name: "policy..." and "value..."."""
        policy = {
            f"policy.{name}": weight for name, weight in self.model.named_parameters() if weight.requires_grad
        }
        return policy | {f"value.{name}": weight for name, weight in self._critic().items()}

    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return list(self.named_parameters().values())

    def value_parameters(self) -> list[nn.Parameter]:
        """The critic's own: its head, and the adapter of its trunk."""
        return list(self._critic().values())

    def _critic(self) -> dict[str, nn.Parameter]:
        trunk = self.value_trunk.trained() if self.value_trunk else {}
        return dict(self.value_head.named_parameters()) | trunk

    def critic_state(self) -> dict[str, Tensor]:
        """What the critic has learnt, by name, for a file."""
        return {name: weight.detach() for name, weight in self._critic().items()}

    def reference(self) -> LanguageActor:
        """This policy as it is now, for good.

        Only what is trained is copied: frozen weights (the backbone under an adapter) are the same tensors in both, so
        an adapter's reference costs an adapter. Nobody asks it for values: it has no trunk for them.
        """
        alike = copy.deepcopy(self.model, frozen_parts(self.model))
        frozen = LanguageActor(alike, copy.deepcopy(self.value_head), self.drawing)
        for weight in frozen.parameters():
            weight.requires_grad_(False)
        return frozen


def _has_int8(model: nn.Module) -> bool:
    return any(weight.dtype == torch.int8 for weight in model.parameters())


def build_optimizer(actor: LanguageActor, spec: PpoSpec) -> torch.optim.Adam:
    """Adam with epsilon 1e-5 (Ziegler et al. 2019), and rates of their own for the value head and for vectors.

    A final norm fixes the length of the hidden state, so its gains set how sure the policy is of all it says; they are
    about 1, and would hardly move at the rate that suits an adapter's matrices. ModelError when such a rate is set and
    no vector is trained.
    """
    groups: dict[str, list[nn.Parameter]] = {"matrices": [], "gains": [], "value": []}
    for name, weight in actor.named_parameters().items():
        kind = "value" if name.startswith("value.") else "matrices" if weight.ndim > 1 else "gains"
        groups[kind].append(weight)
    if spec.gain_learning_rate and not groups["gains"]:
        remedy = "name a norm in model.lora.modules_to_save, or leave it out"
        raise ModelError(Problem("ppo.gain_learning_rate", "no vector is trained", remedy))
    rates = {"gains": spec.gain_learning_rate, "value": spec.value_learning_rate}
    return torch.optim.Adam(
        [
            {"params": weights, "lr": rates.get(kind) or spec.learning_rate}
            for kind, weights in groups.items()
        ],
        eps=1e-5,
    )
