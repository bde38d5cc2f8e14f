"""Where PPO's critic begins.

D = hidden size.
"""

from __future__ import annotations

import torch
from torch import nn

from aligner.errors import ModelError, Problem
from aligner.models.adapters import attach_lora
from aligner.models.backbone import Backbone, trainable_copy
from aligner.models.heads import ValueHead, ValueTrunk
from aligner.models.wrapped import device_of, text_config, unwrapped
from aligner.recipe.model import LoraSpec
from aligner.rl.rewards import ModelReward, Rewards

_SHAPE = ("model_type", "hidden_size", "num_hidden_layers")


def value_trunk_of(backbone: Backbone, lora: LoraSpec | None, rewards: Rewards | None = None) -> ValueTrunk:
    """A trunk of the critic's own: the backbone under a new adapter, which changes nothing yet.

    With `rewards`, under a copy of the reward model's adapter, where that stands on the same backbone. Seed torch
    before: a new adapter is drawn from its global generator.
    """
    model = _source(rewards)[1].model if rewards else None
    if model is not None and not model.apart:
        return ValueTrunk(trainable_copy(model.model, backbone))
    return ValueTrunk(attach_lora(backbone.language_model(), lora or LoraSpec(), "CAUSAL_LM"))


def value_head_of(rewards: Rewards, policy: nn.Module) -> ValueHead:
    """A value head that says of a prefix what the reward model would: its score head, on its scale, by its weight.

    Stiennon et al. 2020 (arXiv:2009.01325) begin the whole critic from the reward model; here the trunk is the
    policy's, so the reward model has to be a head over a trunk of that shape. ModelError with the reason, where it is
    not.
    """
    weight, reward = _source(rewards)
    _check_fits(reward, policy)
    model = reward.model
    score_head = unwrapped(model.model).get_submodule("score")
    hidden_size = text_config(policy).hidden_size
    head = ValueHead(hidden_size)
    with torch.no_grad():
        # Asked and not read: the head may be wrapped by PEFT, and may have a bias or none.
        device = device_of(model.model)
        at_zero = score_head(torch.zeros(1, hidden_size, device=device)).cpu()
        rows_D1 = score_head(torch.eye(hidden_size, device=device)).cpu() - at_zero
        head.linear.weight.copy_(weight / model.std * rows_D1.T)
        head.linear.bias.copy_(weight / model.std * (at_zero[0] - model.mean))
    return head


def _source(rewards: Rewards) -> tuple[float, ModelReward]:
    """The one reward model, and its weight."""
    return next((part.weight, part.reward) for part in rewards.parts if isinstance(part.reward, ModelReward))


def _check_fits(of: ModelReward, policy: nn.Module) -> None:
    reward = of.model
    remedy = "leave ppo.value_init out: the value head then starts at 0; value_warmup_steps trains it first"
    if of.by_text:
        fault = (
            f"{reward.identity} reads by another tokenizer than the policy's, and the critic reads its tokens"
        )
        raise ModelError(Problem("ppo.value_init", fault, remedy))
    if reward.scoring.kind != "head":
        fault = f"reward starts from a score head, and {reward.identity} scores by its {reward.scoring.kind}"
        raise ModelError(Problem("ppo.value_init", fault, remedy))
    its, ours = (
        {name: getattr(text_config(model), name) for name in _SHAPE} for model in (reward.model, policy)
    )
    if other := [
        f"{name} {its[name]}, the policy {ours[name]}" for name in _SHAPE if its[name] != ours[name]
    ]:
        fault = f"the reward model has another trunk than the policy: it has {'; '.join(other)}"
        raise ModelError(Problem("ppo.value_init", fault, remedy))
