"""What tests of several processes have each of them do; by one process alone it is the same on one rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from aligner.data.rows import Origin, Prompt, Turn
from aligner.data.tokens import PromptRow
from aligner.errors import AlignerError, DataError, Problem
from aligner.models.adapters import attach_lora
from aligner.models.heads import ValueHead
from aligner.recipe.group import GrpoRecipe
from aligner.recipe.model import LoraSpec
from aligner.recipe.ppo import MissingEosSpec, PpoSpec
from aligner.rl.actors import Drawing, LanguageActor
from aligner.rl.collect import collect
from aligner.rl.functions import FunctionReward, TokenReward, load_function
from aligner.rl.group_update import GroupBatch, GroupUpdate, policy_weights
from aligner.rl.ptx import PtxMix
from aligner.rl.ranks import Ranks, ranks_of_launch
from aligner.rl.rewards import Part, Rewards
from aligner.rl.score import Scored, score
from aligner.rl.seeds import generator
from aligner.rl.state import Progress
from aligner.rl.update import Experience, update
from tests.tiny import tiny_model, tiny_tokenizer

PROMPTS = [[1, 20, 21, 22], [1, 30], [1, 40, 41, 42, 43, 44, 45], [1, 50, 51], [1, 60]] * 3
BLOCKS = torch.randint(6, 384, (10, 12), generator=torch.Generator().manual_seed(3))


def actor(*, lora: bool = False) -> LanguageActor:
    """A tiny policy whose critic says something."""
    tokenizer, model = tiny_tokenizer(), tiny_model()
    torch.manual_seed(0)
    if lora:
        model = attach_lora(model, LoraSpec(rank=4, alpha=8), "CAUSAL_LM")
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight, std=0.1)
    head = ValueHead(32)
    nn.init.normal_(head.linear.weight, std=0.1)
    return LanguageActor(model, head, Drawing(12, 0.7, tokenizer.eos_token_id, tokenizer.pad_token_id))


def scored_by(policy: LanguageActor, episodes: int) -> Scored:
    """Responses of 1 to 12 tokens; each third of them was cut, and is masked."""
    rollout = policy.sample(PROMPTS[:episodes], generator(0, "rollout"))
    lengths_B1 = torch.tensor([[1 + 5 * i % 12] for i in range(episodes)])
    mask_BR = torch.arange(rollout.ids_BR.shape[1]) < lengths_B1
    finished_B = torch.arange(episodes) % 3 != 2
    rollout = replace(rollout, mask_BR=mask_BR & rollout.mask_BR, finished_B=finished_B)
    even_B = (rollout.ids_BR % 2 == 0).float().mean(dim=1)
    reference_BR = rollout.logprobs_BR - 0.1 * torch.randn(
        rollout.logprobs_BR.shape, generator=generator(1, "r")
    )
    return score(rollout, even_B, reference_BR, kl_coef=0.1, missing_eos=MissingEosSpec(mode="mask"))


def gradients_of(optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter]) -> list[dict[str, Tensor]]:
    """The gradients of each optimiser step, as they will be; zeros where there is none."""
    seen: list[dict[str, Tensor]] = []

    def keep(*_: Any) -> None:
        seen.append({n: torch.zeros(()) if w.grad is None else w.grad.clone() for n, w in named.items()})

    optimizer.register_step_pre_hook(keep)
    return seen


def counted(model: nn.Module) -> list[int]:
    """Rows of every forward pass from now on."""
    rows: list[int] = []

    def note(_module: nn.Module, _args: Any, given: dict[str, Any], _out: Any) -> None:
        rows.append(len(given["input_ids"]))

    model.register_forward_hook(note, with_kwargs=True)
    return rows


def one_update(case: dict[str, Any]) -> dict[str, Any]:
    """An update of PPO with the PTX mix: gradients, figures, what is learnt from, calls of the model."""
    ranks = ranks_of_launch()
    policy = actor(lora=case["lora"])
    scored = scored_by(policy, case["episodes"])
    if not case["values"]:
        scored = replace(scored, rollout=replace(scored.rollout, values_BR=None))
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.01)
    gradients, calls = gradients_of(optimizer, policy.named_parameters()), counted(policy.model)
    seen: list[Experience] = []
    spec = PpoSpec(steps=2, epochs=2, minibatches=2, max_grad_norm=1e9, entropy_coef=0.01, **case["spec"])
    mix = PtxMix(policy.model, BLOCKS, Progress(0.0), 0.5, 3, spec.rows_per_device, seed=7, ranks=ranks)
    stats = update(
        policy, optimizer, scored, spec, seed=0, step=case["step"], mix=mix, check=seen.append, ranks=ranks
    )  # fmt: skip
    batch = seen[0]
    fixed = (batch.advantages_BR, batch.returns_BR, batch.old_values_BR, batch.rollout.mask_BR)
    return {"gradients": gradients, "stats": stats._asdict(), "fixed": fixed, "calls": calls}


def one_group_update(loss: str) -> dict[str, Any]:
    """An update of GRPO."""
    ranks = ranks_of_launch()
    policy = actor()
    numbers = {"steps": 2, "epochs": 1, "minibatches": 3, "prompts_per_step": 5, "samples_per_prompt": 3,
               "kl_coef": 0.1, "loss": loss, "rows_per_device": 2, "max_grad_norm": 1e9}  # fmt: skip
    plan = GrpoRecipe.model_validate(
        {
            "stage": "grpo", "output": "unused", "model": {"base": "unused"}, "grpo": numbers,
            "reward": [{"function": "tests.rl.planted:vowels"}], "data": {"train": [{"path": "unused"}]},
        }
    )  # fmt: skip
    scored = scored_by(policy, 15)
    weights = policy_weights(policy)
    optimizer = torch.optim.SGD(weights.values(), lr=0.01)
    gradients, calls = gradients_of(optimizer, weights), counted(policy.model)
    rollout = scored.rollout
    batch = GroupBatch(rollout, rollout.logprobs_BR, rollout.logprobs_BR - 0.2, scored.scores_B - 0.5)
    stats = GroupUpdate(plan, policy, weights, optimizer, ranks)(batch, 0)
    return {"gradients": gradients, "stats": stats._asdict(), "calls": calls}


def rows_of(count: int) -> list[PromptRow]:
    """Prompts as the stage has them."""
    ids = PROMPTS[:count]
    return [
        PromptRow(list(prompt), Prompt(Origin("test", i), (Turn("user", str(i)),)))
        for i, prompt in enumerate(ids)
    ]


def collected(count: int, group: int) -> dict[str, Any]:
    """Answers to `count` prompts in groups, scored by a function and token by token."""
    ranks, policy = ranks_of_launch(), actor()
    whole = FunctionReward("vowels", load_function("tests.rl.planted:vowels"))
    tokens = TokenReward("long", load_function("tests.rl.planted:long_tokens"), tiny_tokenizer())
    rewards = Rewards([Part(1.0, whole), Part(0.1, tokens)], tiny_tokenizer())
    sampled = counted(policy.model)
    answered, earned = collect(
        policy, rewards, rows_of(count), generator(0, "rollout"), ranks=ranks, group=group
    )
    rollout = answered.rollout
    return {
        "responses": [rollout.response(i) for i in range(count)],
        "texts": answered.texts,
        "prompts": rollout.prompts,
        "logprobs": torch.where(rollout.mask_BR, rollout.logprobs_BR, 0.0),
        "total": earned.total(),
        "sampled": sampled[0] if sampled else 0,
    }


def fault_on(rank: int, how: Callable[[Ranks, Callable[[], int]], object]) -> str:
    """What each rank is told where one of them fails in its own work."""
    ranks = ranks_of_launch()

    def work() -> int:
        if ranks.rank == rank:
            raise DataError(Problem("here", f"rank {rank} found no rows"))
        return 1

    try:
        how(ranks, work)
    except AlignerError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def parted(part: bool) -> str:
    """Whether ranks see that their weights are not the same any more: one number of one of them, in its last bit."""
    ranks, policy = ranks_of_launch(), actor()
    if part and ranks.rank == 1:
        weight = policy.value_head.linear.weight
        with torch.no_grad():
            weight[0, 3] = torch.nextafter(weight[0, 3], torch.tensor(9.0))
    try:
        ranks.check_same(policy.parameters(), "the weights")
    except AlignerError as error:
        return str(error)
    return "the same"


def said_by_one() -> tuple[bool, bool, str]:
    """A flag that only rank 1 has, one that none has, and what the first rank alone found."""
    ranks = ranks_of_launch()
    return ranks.any(ranks.rank == 1), ranks.any(False), ranks.first(lambda: f"of {ranks.rank}")
