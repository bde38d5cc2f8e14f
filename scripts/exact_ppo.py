"""PPO's numbers beside TRL 1.12.0's: rewards, advantages, whitening, losses, gradients, and one whole update.

`scripts/bench ppo-exact` prints the largest difference of each, and fails where one is larger than it should be. The
differences that are known and meant:
- TRL divides the variance of advantages by n - 1, we by n: ours are sqrt(n / (n - 1)) as large.
- TRL pays the score one token after the end of text (trl#3750), where the value loss counts one token more and the
  policy loss none; we pay it on the end of text. A response that fills its room is paid on its last token by both.
- TRL's temperature is 1e-7 higher.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from aligner.models.logprobs import token_logprobs
from aligner.models.sample import response_logprobs
from aligner.recipe.ppo import MissingEosSpec, PpoSpec
from aligner.rl.advantages import gae, masked_whiten
from aligner.rl.kl import k1
from aligner.rl.losses import policy_loss, value_loss
from aligner.rl.rollout import Rollout
from aligner.rl.score import score
from aligner.rl.update import Evaluation, update
from scripts.speed_ppo import make_world

EPISODES, TOKENS, PAD = 32, 12, 0
GAMMA, LAM, KL_COEF, CLIP, VALUE_COEF = 0.99, 0.95, 0.05, 0.2, 0.1
NO_PENALTY = MissingEosSpec(mode="subtract", value=0.0)
UPDATE = {
    "epochs": 3, "new_tokens": TOKENS, "temperature": 0.9, "kl_coef": KL_COEF, "learning_rate": 0.05,
}  # fmt: skip


class Difference(NamedTuple):
    """How far ours is from theirs, at most, and how far it may be."""

    what: str
    largest: float
    allowed: float


def main() -> None:
    """Hand over the cases, read TRL's answers, compare; exit 1 where a difference is larger than allowed."""
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder)
        cases = write_cases(world)
        python = f"{os.environ['ALIGNER_TRL_VENV']}/bin/python"
        subprocess.run([python, "scripts/exact_ppo_trl.py", folder], check=True, stdout=subprocess.DEVNULL)
        theirs = torch.load(world / "theirs.pt")
        found = [*compare_logprobs(world, theirs["logprobs"]), *compare_update(world, theirs["update"])]
        for name, case in cases.items():
            found += compare_case(name, case, theirs[name])
    table = Table("", "largest difference", "allowed", box=None)
    for difference in found:
        table.add_row(difference.what, f"{difference.largest:.1e}", f"{difference.allowed:.0e}")
    Console().print(table)
    sys.exit(any(not difference.largest <= difference.allowed for difference in found))


def write_cases(world: Path) -> dict[str, dict[str, Any]]:
    """Made-up rollouts whose responses fill their room ("full") or end before it ("ending"); models for the update."""
    make_world(world, "1M")
    torch.manual_seed(1)
    cases = {}
    for name, shortest in (("full", TOKENS), ("ending", 2)):
        lengths = torch.randint(shortest, TOKENS + 1, (EPISODES,))
        real = torch.arange(TOKENS) < lengths[:, None]
        wide = (EPISODES, TOKENS)
        cases[name] = {
            "responses": torch.where(real, torch.randint(5, 50, wide), PAD), "sequence_lengths": lengths - 1,
            "logprobs": -torch.rand(wide), "ref_logprobs": -torch.rand(wide), "values": torch.randn(wide),
            "scores": torch.randn(EPISODES), "new_logprobs": -torch.rand(wide), "new_values": torch.randn(wide),
            "settings": {
                "kl_estimator": "k1", "kl_coef": KL_COEF, "whiten_rewards": False, "gamma": GAMMA, "lam": LAM,
                "cliprange": CLIP, "cliprange_value": CLIP, "vf_coef": VALUE_COEF,
            },
        }  # fmt: skip
    torch.save(cases, world / "cases.pt")
    torch.save((4 * torch.randn(8, 6, 300), torch.randint(300, (8, 6))), world / "logits.pt")
    prompts = [torch.randint(8, 500, (9 + i % 7,)).tolist() for i in range(EPISODES)]
    torch.save(UPDATE | {"prompts": prompts}, world / "settings.pt")
    return cases


def compare_logprobs(world: Path, theirs: dict[str, Tensor]) -> Iterator[Difference]:
    """Log-probabilities of given tokens."""
    logits, ids = torch.load(world / "logits.pt")
    ours, _ = token_logprobs(logits.flatten(0, 1), ids.flatten(), temperature=1.0)
    yield difference("log-probabilities", ours, theirs["logprobs"].flatten(), 1e-5)


def compare_case(name: str, case: dict[str, Any], theirs: dict[str, Tensor]) -> Iterator[Difference]:
    """Rewards, KL, advantages, losses and their gradients, on the tokens that each side counts."""
    mask_BR, paid_BR = ~theirs["padding_mask"], ~theirs["padding_mask_p1"]
    everyone = torch.ones(EPISODES, dtype=torch.bool)
    rollout = Rollout([[1]] * EPISODES, case["responses"], mask_BR, case["logprobs"], everyone)
    scored = score(rollout, case["scores"], case["ref_logprobs"], kl_coef=KL_COEF, missing_eos=NO_PENALTY)
    kl_BR = k1(case["logprobs"], case["ref_logprobs"])
    yield difference(f"{name}: KL", kl_BR * mask_BR, theirs["kl"] * mask_BR, 1e-6)
    rewards_BR, values_BR = scored.rewards_BR, case["values"] * mask_BR
    yield difference(f"{name}: reward of a response", rewards_BR.sum(1), theirs["rewards"].sum(1), 1e-5)
    if name == "ending":  # from here on with the score where TRL puts it, and the value it puts there
        rewards_BR, mask_of_values_BR, values_BR = theirs["rewards"], paid_BR, case["values"] * paid_BR
    else:
        mask_of_values_BR = mask_BR
    raw_BR = gae(rewards_BR, values_BR, mask_of_values_BR, gamma=GAMMA, lam=LAM)
    count = int(mask_BR.sum())
    whitened_BR = masked_whiten(raw_BR * mask_BR, mask_BR) * ((count - 1) / count) ** 0.5
    returns_BR = raw_BR + values_BR
    yield difference(f"{name}: advantages, whitened", whitened_BR, theirs["advantages"] * mask_BR, 1e-5)
    yield difference(
        f"{name}: returns", returns_BR * mask_of_values_BR, theirs["returns"] * mask_of_values_BR, 1e-5
    )
    new, values = (case[key].clone().requires_grad_() for key in ("new_logprobs", "new_values"))
    policy = policy_loss(new, case["logprobs"], theirs["advantages"], mask_BR, clip=CLIP, num_tokens=count)
    value = value_loss(
        values, values_BR, returns_BR, mask_of_values_BR, clip=CLIP, num_tokens=int(mask_of_values_BR.sum())
    )
    (policy.loss + VALUE_COEF * value.loss).backward()
    yield difference(f"{name}: policy loss", policy.loss, theirs["pg_loss"], 1e-6)
    yield difference(f"{name}: value loss", value.loss, theirs["vf_loss"], 1e-6)
    yield difference(f"{name}: gradient of log-probabilities", new.grad, theirs["dlogprobs"], 1e-6)
    yield difference(f"{name}: gradient of values", values.grad, theirs["dvalues"], 1e-6)


class TwoModels:
    """TRL's actor by our protocol: a policy, and a critic with a trunk of its own."""

    def __init__(self, policy: PreTrainedModel, critic: PreTrainedModel) -> None:
        self.policy, self.critic = policy.eval(), critic.eval()

    def parameters(self) -> list[nn.Parameter]:
        """All of both."""
        return [*self.policy.parameters(), *self.critic.parameters()]

    def value_parameters(self) -> list[nn.Parameter]:
        """All of the critic."""
        return list(self.critic.parameters())

    def evaluate(self, prompts: list[list[int]], ids_BR: Tensor, mask_BR: Tensor) -> Evaluation:
        """Log-probabilities and entropies by the one, values by the other."""
        seen = response_logprobs(
            self.policy, prompts, ids_BR, mask_BR, temperature=UPDATE["temperature"], pad_id=PAD
        )
        rows = [
            self.critic.score(
                self.critic.base_model(torch.tensor([[*prompt, *ids.tolist()]])).last_hidden_state
            )[0, len(prompt) - 1 : -1, 0]
            for prompt, ids in zip(prompts, ids_BR, strict=True)
        ]
        return Evaluation(seen.logprobs_BR, seen.entropy_BR, torch.stack(rows))


def compare_update(world: Path, theirs: dict[str, Any]) -> Iterator[Difference]:
    """PPOTrainer's own update of a rollout, and ours of the same responses: how the weights moved."""
    settings = torch.load(world / "settings.pt")
    policy = AutoModelForCausalLM.from_pretrained(world / "base")
    critic, judge = (
        AutoModelForSequenceClassification.from_pretrained(world / "reward", num_labels=1) for _ in range(2)
    )
    sequences, pad_id = theirs["sequences"], policy.config.pad_token_id
    ids_BR = sequences[:, -TOKENS:]
    assert (ids_BR != pad_id).all(), (
        "a response holds a pad token: TRL would take it for the end; take another seed"
    )
    prompts = [[int(token) for token in row if token != pad_id] for row in sequences[:, :-TOKENS]]
    actor, mask_BR = TwoModels(policy, critic), torch.ones_like(ids_BR, dtype=torch.bool)
    with torch.no_grad():
        now = actor.evaluate(prompts, ids_BR, mask_BR)
        scores_B = torch.stack(
            [
                judge(torch.tensor([[*prompt, *ids.tolist()]])).logits[0, 0]
                for prompt, ids in zip(prompts, ids_BR, strict=True)
            ]
        )
    rollout = Rollout(prompts, ids_BR, mask_BR, now.logprobs_BR, mask_BR[:, 0])
    scored = score(rollout, scores_B, now.logprobs_BR, kl_coef=KL_COEF, missing_eos=NO_PENALTY)
    spec = PpoSpec(
        steps=1, prompts_per_step=EPISODES, epochs=settings["epochs"], max_grad_norm=1e9, gamma=1.0
    )
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    value_before = {name: weight.clone() for name, weight in critic.state_dict().items()}
    optimizer = torch.optim.SGD(actor.parameters(), lr=settings["learning_rate"])
    update(actor, optimizer, scored, spec, seed=0, step=0)
    for what, start, ours, others in (
        ("policy", before, policy.state_dict(), theirs["policy"]),
        ("value model", value_before, critic.state_dict(), theirs["value"]),
    ):
        moved, off = (
            sum(float(((after[name] - origin[name]) ** 2).sum()) for name in start) ** 0.5
            for after, origin in ((others, start), (ours, others))
        )
        yield Difference(f"update: movement of the {what}, relative", off / moved, 5e-3)


def difference(what: str, ours: Tensor, theirs: Tensor, allowed: float) -> Difference:
    """The largest difference of two tensors."""
    return Difference(what, float((ours.detach() - theirs).abs().max()), allowed)


if __name__ == "__main__":
    main()
