"""The roles of PPO over a language model: a policy with a critic on its last hidden state, and the frozen reference."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aligner.errors import ModelError, Problem
from aligner.models.fast import hasten
from aligner.models.heads import ValueHead
from aligner.models.sample import response_logprobs, sample_responses
from aligner.recipe.ppo import PpoSpec
from aligner.rl.rollout import Rollout
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

    The model is put into eval mode and stays there: dropout would make the policy another one at every pass.
    """

    def __init__(
        self, model: nn.Module, value_head: ValueHead, drawing: Drawing, *, entropy_gradient: bool = False
    ) -> None:
        self.model = hasten(model.eval())
        self.value_head = value_head
        self.drawing = drawing
        self.entropy_gradient = entropy_gradient

    def sample(self, prompts: list[list[int]], rng: torch.Generator) -> Rollout:
        """One response to each prompt, with the critic's values as it was drawn."""
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
            value_head=self.value_head,
        )
        return Rollout(
            prompts, drawn.ids_BR, drawn.mask_BR, drawn.logprobs_BR, drawn.finished_B, drawn.values_BR
        )

    def evaluate(self, prompts: list[list[int]], ids_BR: Tensor, mask_BR: Tensor) -> Evaluation:
        """Log-probabilities, entropies and values of given responses by one forward pass."""
        with torch.autocast(ids_BR.device.type, torch.bfloat16, enabled=self.drawing.autocast):
            seen = response_logprobs(
                self.model,
                prompts,
                ids_BR,
                mask_BR,
                temperature=self.drawing.temperature,
                pad_id=self.drawing.pad_id,
                with_hidden=True,
                entropy_gradient=self.entropy_gradient,
            )
        assert seen.hidden_BRD is not None
        return Evaluation(seen.logprobs_BR, seen.entropy_BR, self.value_head(seen.hidden_BRD.float()))

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name: "policy..." and "value..."."""
        policy = {
            f"policy.{name}": weight for name, weight in self.model.named_parameters() if weight.requires_grad
        }
        return policy | {f"value.{name}": weight for name, weight in self.value_head.named_parameters()}

    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return list(self.named_parameters().values())

    def value_parameters(self) -> list[nn.Parameter]:
        """The value head's."""
        return list(self.value_head.parameters())

    def reference(self) -> LanguageActor:
        """This policy as it is now, for good.

        Only what is trained is copied: frozen weights (the backbone under an adapter) are the same tensors in both, so
        an adapter's reference costs an adapter.
        """
        shared = {id(weight): weight for weight in self.model.parameters() if not weight.requires_grad}
        frozen = LanguageActor(
            copy.deepcopy(self.model, shared), copy.deepcopy(self.value_head), self.drawing
        )
        for weight in frozen.parameters():
            weight.requires_grad_(False)
        return frozen


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
