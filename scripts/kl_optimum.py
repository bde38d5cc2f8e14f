"""How near PPO comes to the best there is (`recipes/kl-optimum.yaml`): `python scripts/kl_optimum.py RUN...`.

For a reward r, a reference p and a coefficient beta, E[r] - beta KL(. || p) is highest under p exp(r / beta) / Z, with
Z = E_p[exp(r / beta)], and is beta log Z there (Ziegler et al. 2019, arXiv:1909.08593, 2.2). Both are estimated for
each prompt from samples of p, reweighed; a run a seed. Samples that carry no weight
say nothing of it: it is told how many count.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # run as a script, only this folder is on the path
    sys.path.insert(0, str(ROOT))

from aligner.data.build import build_prompts  # noqa: E402
from aligner.data.tokens import PromptRow  # noqa: E402
from aligner.errors import AlignerError, Problem, RunError  # noqa: E402
from aligner.evals.answers import Answers, sample_answers  # noqa: E402
from aligner.evals.likelihood import answer_logprobs  # noqa: E402
from aligner.models.load import LoadedModel, load_trained  # noqa: E402
from aligner.recipe.data import SourceSpec  # noqa: E402
from aligner.recipe.ppo import PpoRecipe  # noqa: E402
from aligner.rl.rules import RuleReward, read_rules  # noqa: E402
from scripts.finished_runs import finished, named_by, read_each, spread  # noqa: E402

FRONTIER = np.geomspace(0.03, 3.0, 25)  # betas of the curve that is drawn
PROMPTS = ROOT / "data/world/heldout/prompts.jsonl"


@dataclass(frozen=True)
class Optimum:
    """The best policy for one prompt: its objective beta log Z, reward, KL in nats, and how many samples tell of it."""

    objective: float
    reward: float
    kl: float
    effective: float


@dataclass(frozen=True)
class Reached:
    """What a policy does on each of the prompts."""

    reward: list[float]
    kl: list[float]


@dataclass(frozen=True)
class Seed:
    """The rewards of the reference's samples by prompt, and what PPO reached by beta."""

    reference: list[list[float]]
    policies: dict[float, Reached]


@dataclass(frozen=True)
class Found:
    """One seed and beta, means over prompts; `share`: of what can be gained over the reference."""

    optimum: Optimum
    least_effective: float
    reward: float
    kl: float
    objective: float
    share: float


def optimum(rewards: Sequence[float], beta: float) -> Optimum:
    """From the rewards of samples of the reference, each weighed by exp(r / beta).

    By hand: rewards 0 and 1, beta 1 -> Z = (1 + e) / 2, reward e / (1 + e), KL = reward - log Z.
    """
    scaled = np.asarray(rewards, dtype=np.float64) / beta
    weights = np.exp(scaled - scaled.max())
    log_z = float(scaled.max() + np.log(weights.mean()))
    shares = weights / weights.sum()
    reward = float(shares @ np.asarray(rewards))
    return Optimum(beta * log_z, reward, reward / beta - log_z, float(1 / (shares**2).sum()))


def mean_optimum(reference: Sequence[Sequence[float]], beta: float) -> Optimum:
    """Means over prompts; of the effective numbers the median."""
    each = [optimum(rewards, beta) for rewards in reference]
    objective, reward, kl = (
        mean(getattr(one, name) for one in each) for name in ("objective", "reward", "kl")
    )
    return Optimum(objective, reward, kl, median(one.effective for one in each))


def compare(seed: Seed, beta: float) -> Found:
    """What PPO reached beside what can be reached. The reference itself has its mean reward and no KL."""
    best, policy = mean_optimum(seed.reference, beta), seed.policies[beta]
    start = mean(mean(rewards) for rewards in seed.reference)
    reward, kl = mean(policy.reward), mean(policy.kl)
    objective = reward - beta * kl
    least = min(optimum(rewards, beta).effective for rewards in seed.reference)
    share = (objective - start) / (best.objective - start)
    return Found(best, least, reward, kl, objective, share)


def read_seed(run: Path, *, prompts: Path, count: int, samples: int, policy_samples: int) -> Seed:
    """Sample the reference and every policy of a finished pipeline; RunError where it is not one of the recipe."""
    stages = sorted(folder.parent for folder in run.glob("beta-*/manifest.json"))
    if not stages:
        remedy = "name the output of recipes/kl-optimum.yaml"
        raise RunError(Problem(str(run), "has no stages called beta-...", remedy))
    recipes = {stage: PpoRecipe.model_validate(finished(stage).recipe) for stage in stages}
    first = recipes[stages[0]]
    if first.reward[0].rules is None or len(first.reward) > 1:
        raise RunError(
            Problem(str(stages[0]), "has no reward of rules alone", "that is what is measured here")
        )
    rules = read_rules(str(named_by(stages[0], first.output, first.reward[0].rules)))
    reference = load_trained(named_by(stages[0], first.output, first.model.base))
    source = SourceSpec(path=str(prompts), format="prompts")
    limit = first.data.max_prompt_tokens
    rows = build_prompts([source], reference.tokenizer, max_prompt_tokens=limit, seed=0).rows[:count]
    drawn = answer(reference, rows, first, samples)
    rewards = by_prompt(rewards_of(drawn, rules, first), len(rows))
    policies = {
        recipe.ppo.kl_coef: reached(load_trained(stage), reference, rows, recipe, rules, policy_samples)
        for stage, recipe in recipes.items()
    }
    return Seed(rewards, policies)


def reached(
    policy: LoadedModel,
    reference: LoadedModel,
    rows: list[PromptRow],
    recipe: PpoRecipe,
    rules: RuleReward,
    samples: int,
) -> Reached:
    """Mean reward and mean log(policy / reference) of a policy's samples, by prompt."""
    drawn = answer(policy, rows, recipe, samples)
    prompts = [row.input_ids for row in rows for _ in range(samples)]
    seen = answer_logprobs(
        reference.model,
        [[*prompt, *ids] for prompt, ids in zip(prompts, drawn.token_ids, strict=True)],
        [len(prompt) for prompt in prompts],
        batch_size=64,
        pad_id=reference.tokenizer.pad_token_id,
        temperature=recipe.sampling.temperature,
    )
    nats = [own - other for own, other in zip(drawn.logprobs, seen, strict=True)]
    rewards = rewards_of(drawn, rules, recipe)
    return Reached(*([mean(part) for part in by_prompt(values, len(rows))] for values in (rewards, nats)))


def answer(model: LoadedModel, rows: list[PromptRow], recipe: PpoRecipe, samples: int) -> Answers:
    """`samples` answers to each prompt, those of one prompt together, drawn as the recipe draws them."""
    prompts = [row.input_ids for row in rows for _ in range(samples)]
    sampling = recipe.sampling
    length, temperature = sampling.max_new_tokens, sampling.temperature
    return sample_answers(
        model.model, model.tokenizer, prompts, max_new_tokens=length, temperature=temperature, seed=1
    )


def rewards_of(answers: Answers, rules: RuleReward, recipe: PpoRecipe) -> list[float]:
    """What PPO was paid for such answers: minus the weights of the broken rules; without an end, the value of that."""
    costs = [sum(rule.weight for rule in rules.rules if rule.broken_by(text)) for text in answers.texts]
    missing = recipe.ppo.missing_eos.value
    return [-cost if done else missing for cost, done in zip(costs, answers.finished, strict=True)]


def by_prompt(values: Sequence[float], prompts: int) -> list[list[float]]:
    """One list a prompt."""
    size = len(values) // prompts
    return [list(values[at : at + size]) for at in range(0, len(values), size)]


def print_table(seeds: Sequence[Seed]) -> None:
    """Means over seeds, and their intervals where there are several."""
    print("| beta | optimum: reward | KL | objective | samples that count, median (least) |"
          " PPO: reward | KL | objective | share of the gain | within 10 % |")  # fmt: skip
    print(f"|{'---|' * 10}")
    for beta in sorted(seeds[0].policies):
        found = [compare(seed, beta) for seed in seeds]
        best = [one.optimum for one in found]
        effective = f"{mean(b.effective for b in best):.0f} ({min(one.least_effective for one in found):.1f})"
        columns = [
            f"{beta:g}",
            *(spread([getattr(b, name) for b in best]) for name in ("reward", "kl", "objective")),
            effective,
            *(
                spread([getattr(one, name) for one in found])
                for name in ("reward", "kl", "objective", "share")
            ),
            f"{sum(one.share >= 0.9 for one in found)} of {len(found)} seeds",
        ]
        print(f"| {' | '.join(columns)} |")
    start = [mean(mean(rewards) for rewards in seed.reference) for seed in seeds]
    print(f"reference: reward {spread(start)}, KL 0")


def plot(seeds: Sequence[Seed], out: Path) -> None:
    """Reward over KL: the best there is, as a curve over beta, and PPO's policies."""
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for number, seed in enumerate(seeds):
        curve = [mean_optimum(seed.reference, beta) for beta in FRONTIER]
        (line,) = axes.plot([p.kl for p in curve], [p.reward for p in curve], label=f"optimum, seed {number}")
        points = [(mean(p.kl), mean(p.reward)) for p in seed.policies.values()]
        axes.scatter(
            *zip(*points, strict=True), color=line.get_color(), marker="x", label=f"PPO, seed {number}"
        )
    axes.set(xlabel="KL to the reference, nats per response", ylabel="reward")
    axes.legend(frameon=False)
    figure.savefig(out, dpi=110)
    print(f"plot: {out}")


def main() -> None:
    """Sample, print the table and write the plot."""
    parser = argparse.ArgumentParser(description="PPO beside the exact optimum of its objective.")
    parser.add_argument(
        "runs", nargs="+", type=Path, help="run folders of recipes/kl-optimum.yaml, one a seed"
    )
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="held-out prompts")
    parser.add_argument("--count", type=int, default=64, help="how many of them")
    parser.add_argument("--samples", type=int, default=256, help="of the reference, to each prompt")
    parser.add_argument("--policy-samples", type=int, default=16, help="of a policy, to each prompt")
    parser.add_argument("--out", type=Path, default=Path("kl-optimum.png"), help="where the plot goes")
    asked = parser.parse_args()

    def read(run: Path) -> Seed:
        return read_seed(run, prompts=asked.prompts, count=asked.count, samples=asked.samples,
                         policy_samples=asked.policy_samples)  # fmt: skip

    try:
        seeds = read_each(asked.runs, read)
    except AlignerError as error:
        parser.exit(error.exit_code, f"{error}\n")
    print_table(seeds)
    plot(seeds, asked.out)


if __name__ == "__main__":
    main()
