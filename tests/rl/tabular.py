"""A language small enough to know everything about: 6 tokens, at most 4 of them, a free choice at every prefix.

The KL-regularised optimum pi*(y) ~ pi_ref(y) exp(r(y) / beta) is computed by listing all 781 responses; the policy is a
table, so nothing but the algorithm can keep it from getting there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aligner.recipe.ppo import MissingEosSpec, PpoSpec
from aligner.rl.rollout import Rollout
from aligner.rl.score import score
from aligner.rl.seeds import generator
from aligner.rl.update import Evaluation, update

VOCABULARY, LONGEST, EOS = 6, 4, 0
OFFSETS = [
    sum(VOCABULARY**d for d in range(depth)) for depth in range(LONGEST + 1)
]  # first state of each depth
STATES = OFFSETS[LONGEST]  # a state is a prefix, the empty one first
NO_RULE = MissingEosSpec(mode="subtract", value=0.0)


def child(state: Tensor, token: Tensor, depth: int) -> Tensor:
    """The state reached from one of this depth."""
    return OFFSETS[depth + 1] + (state - OFFSETS[depth]) * VOCABULARY + token


def response_logprobs(logits: Tensor) -> Tensor:
    """Log-probability of every response, by its last state and last token: (STATES, VOCABULARY), -inf where it goes on."""
    step = logits.log_softmax(-1)
    reach = torch.full((STATES,), -torch.inf)
    reach[0] = 0.0
    for depth in range(LONGEST - 1):
        for state in range(OFFSETS[depth], OFFSETS[depth + 1]):
            for token in range(1, VOCABULARY):
                reach[child(torch.tensor(state), torch.tensor(token), depth)] = (
                    reach[state] + step[state, token]
                )
    whole = reach[:, None] + step
    whole[: OFFSETS[LONGEST - 1], 1:] = -torch.inf
    return whole


@dataclass(frozen=True)
class Environment:
    """Reference logits and a reward for every response."""

    reference: Tensor
    rewards: Tensor

    @classmethod
    def random(cls, seed: int) -> Environment:
        rng = torch.Generator().manual_seed(seed)
        return cls(*(torch.randn(STATES, VOCABULARY, generator=rng) for _ in range(2)))

    def distance(self, logits: Tensor, beta: float) -> float:
        """Total variation to the optimum."""
        best = (response_logprobs(self.reference) + self.rewards / beta).flatten().softmax(0)
        return float((response_logprobs(logits).exp().flatten() - best).abs().sum() / 2)


class Tabular(nn.Module):
    """Logits and a value for every prefix; keeps the actor protocol of `aligner.rl.update`."""

    def __init__(
        self, reference: Tensor, *, temperature: float = 1.0, recorded_temperature: float | None = None
    ) -> None:
        super().__init__()
        self.logits = nn.Parameter(reference * temperature)
        self.values = nn.Parameter(torch.zeros(STATES))
        self.temperature, self.recorded = temperature, recorded_temperature or temperature

    def value_parameters(self) -> list[nn.Parameter]:
        return [self.values]

    def evaluate(self, prompts: list[list[int]], ids_BR: Tensor, mask_BR: Tensor) -> Evaluation:
        table = (self.logits / self.recorded).log_softmax(-1)
        states_BR = prefixes(ids_BR, mask_BR)
        rows_BRV = table[states_BR]
        logprobs_BR = rows_BRV.gather(-1, ids_BR[..., None]).squeeze(-1)
        return Evaluation(logprobs_BR, -(rows_BRV.exp() * rows_BRV).sum(-1), self.values[states_BR])

    @torch.no_grad()
    def sample(self, prompts: list[list[int]], rng: torch.Generator) -> Rollout:
        count = len(prompts)
        sampled = (self.logits / self.temperature).softmax(-1)
        state, going = torch.zeros(count, dtype=torch.long), torch.ones(count, dtype=torch.bool)
        ids, mask = (
            torch.zeros(count, LONGEST, dtype=torch.long),
            torch.zeros(count, LONGEST, dtype=torch.bool),
        )
        for depth in range(LONGEST):
            token = torch.multinomial(sampled[state], 1, generator=rng).squeeze(1)
            ids[:, depth], mask[:, depth] = torch.where(going, token, EOS), going
            going = going & (token != EOS)
            state = torch.where(going, child(state, token, depth), 0) if depth < LONGEST - 1 else state
        logprobs = self.evaluate(prompts, ids, mask).logprobs_BR
        return Rollout(prompts, ids, mask, logprobs, ~going)


def prefixes(ids_BR: Tensor, mask_BR: Tensor) -> Tensor:
    """The state each token was drawn in; state 0 on padding."""
    states = [torch.zeros_like(ids_BR[:, 0])]
    for depth in range(ids_BR.shape[1] - 1):
        states.append(child(states[-1], ids_BR[:, depth], depth))
    return torch.where(mask_BR, torch.stack(states, 1), 0)


def earned(environment: Environment, rollout: Rollout) -> Tensor:
    """The environment's reward of each response."""
    last = rollout.mask_BR.sum(1) - 1
    rows = torch.arange(len(last))
    return environment.rewards[
        prefixes(rollout.ids_BR, rollout.mask_BR)[rows, last], rollout.ids_BR[rows, last]
    ]


def train(
    environment: Environment,
    policy: Tabular,
    *,
    steps: int = 150,
    episodes: int = 512,
    beta: float = 1.0,
    lam: float = 0.95,
    seed: int = 0,
    kl_in_reward: bool = True,
    rescale: Callable[[Tensor], Tensor] = lambda scores_B: scores_B,
) -> float:
    """Sample, score, update as in `aligner.stages.ppo`; the distance to the optimum at the end."""
    spec = PpoSpec(steps=steps, prompts_per_step=episodes, learning_rate=0.05, lam=lam, kl_coef=beta)
    reference = Tabular(
        environment.reference, temperature=policy.temperature, recorded_temperature=policy.recorded
    )
    optimizer = torch.optim.Adam(policy.parameters(), lr=spec.learning_rate, eps=1e-5)
    prompts: list[list[int]] = [[] for _ in range(episodes)]
    for step in range(steps):
        rollout = policy.sample(prompts, generator(seed, "sample", step))
        with torch.no_grad():
            ref = reference.evaluate(prompts, rollout.ids_BR, rollout.mask_BR).logprobs_BR
        scores_B = rescale(earned(environment, rollout))
        scored = score(rollout, scores_B, ref, kl_coef=beta if kl_in_reward else 0.0, missing_eos=NO_RULE)
        update(policy, optimizer, scored, spec, seed=seed, step=step)
    with torch.no_grad():
        return environment.distance(policy.logits / policy.temperature, beta)
