"""A run in a few sentences: what was trained on what, whether the reward went up, by how much, and at what price."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from aligner.run.facts import StageFacts
from aligner.run.numbers import number
from aligner.run.report_tables import interval, movements

_MADE = {
    "pretrain": "trained from nothing, {steps} steps over {rows} documents",
    "sft": "tuned from {base}, {steps} steps over {rows} conversations",
    "reward": "trained from {base}, {steps} steps over {rows} pairs of answers",
    "dpo": "tuned from {base}, {steps} steps over {rows} pairs of answers",
    "kto": "tuned from {base}, {steps} steps over {rows} pairs of answers",
    "ppo": "tuned from {base}, {steps} steps of answers to {rows} prompts",
    "grpo": "tuned from {base}, {steps} steps of answers to {rows} prompts",
    "rloo": "tuned from {base}, {steps} steps of answers to {rows} prompts",
    "rejection": "tuned from {base}, {steps} steps of answers to {rows} prompts",
}
_REWARDS = {"gold": "true (gold) reward", "proxy": "learned (proxy) reward"}
# What may get worse while the reward goes up: said of a model beside its reference.
_PRICES = {
    "abstained_answerable_share": "of the answerable prompts left without an answer",
    "gold_reward_greedy": "gold reward of the most likely answers",
    "response_tokens": "tokens a response",
}


def verdict(stages: Sequence[StageFacts]) -> list[str]:
    """Sentences, first on what an evaluation compared, then one on every model that was made; [] for other stages."""
    evaluations = [stage for stage in stages if stage.manifest.stage == "evaluate" and stage.results]
    compared = [sentence for stage in evaluations for sentence in _compared(stage, stages)]
    return [*compared, *(_made(stage) for stage in stages if stage.manifest.stage in _MADE)]


def _compared(stage: StageFacts, stages: Sequence[StageFacts]) -> Iterator[str]:
    for model in _tuned_further(stage, stages):
        yield from _gain(stage, model)
    yield from _matches(stage)
    yield from _accuracy(stage)


def _made(stage: StageFacts) -> str:
    if stage.manifest.status != "finished":
        return f"{stage.name} is not finished ({stage.manifest.status})."
    parents = {role: called(identity) for role, identity in stage.manifest.parents.items()}
    base, words = parents.get("base", "its base"), _MADE[stage.manifest.stage]
    words = words.format(base=base, rows=stage.trained_rows, steps=stage.steps)
    rewards = [name for role, name in parents.items() if role.startswith("reward")]
    words += f", with {' and '.join(rewards)} as its reward" if rewards else ""
    return f"{stage.name} was {words}{_moved(stage)}."


def _moved(stage: StageFacts) -> str:
    """What its held-out rows say, the true reward before the learned one."""
    results = stage.results
    if "sft/base_holdout_loss_nats" in results:
        losses = [number(results[f"sft/{key}_nats"]) for key in ("base_holdout_loss", "holdout_loss")]
        return f": held-out loss (nats per token) {' → '.join(losses)}"
    if "reward/accuracy_share" in results:
        share = number(results["reward/accuracy_share"], "_share")
        return f": it prefers the better of two held-out answers in {share} of the pairs"
    moved = [one for one in movements(stage.name, stage.metrics) if "held-out" in one.name]
    moved.sort(key=lambda one: "gold" not in one.name)
    if not moved:
        return ""
    since = f" (at step {moved[0].since})" if moved[0].since else ""
    return f": {moved[0].name} {moved[0].first}{since} → {moved[0].last}"


def called(identity: str) -> str:
    """A parent in a sentence: the stage of "…/sft/model#hash", owner/name of "owner/name@revision"."""
    if "#" not in identity:
        return identity.partition("@")[0]
    parts = Path(identity.rpartition("#")[0]).parts
    return parts[-2] if parts[-1] == "model" and len(parts) > 1 else parts[-1]


def _matches(stage: StageFacts) -> Iterator[str]:
    """Exact match of every model, suite by suite."""
    found: dict[str, list[str]] = {}
    for model in stage.manifest.recipe.get("models", {}):
        for suite in stage.manifest.recipe["suites"].get("tasks", {}):
            value = stage.results.get(f"{model}/exact_match_share[{suite}]")
            if value is not None:
                found.setdefault(suite, []).append(f"{model} {number(value, '_share')}")
    if found:
        told = [f"{suite}: {', '.join(shares)}" for suite, shares in found.items()]
        yield f"Answered exactly: {'; '.join(told)}."


def _accuracy(stage: StageFacts) -> Iterator[str]:
    share, low, high = (stage.results.get(f"reward/accuracy{end}_share") for end in ("", "_low", "_high"))
    if share is not None:
        ends = f" (95 % interval {interval('_share', low, high)})" if low is not None else ""
        told = f"{number(share, '_share')}{ends} of the pairs"
        yield f"The reward model prefers the better of two held-out answers in {told}."


def _tuned_further(stage: StageFacts, stages: Sequence[StageFacts]) -> list[str]:
    """The models that were tuned after the reference: not the base that it was made from, where that is known."""
    kinds = {one.name: one.manifest.stage for one in stages}
    parents = stage.manifest.parents
    models = stage.manifest.recipe.get("models", {})
    return [name for name in models if kinds.get(called(parents.get(name, ""))) not in ("pretrain", "sft")]


def _gain(stage: StageFacts, model: str) -> Iterator[str]:
    """Whether the model's sampled answers are better than the reference's, and what that costs."""
    results, reference = stage.results, str(stage.manifest.recipe.get("reference"))
    kind = next((kind for kind in _REWARDS if f"{model}/{kind}_gain_low" in results), None)
    if kind is None:
        return
    gain, low, high = (results[f"{model}/{kind}_gain{end}"] for end in ("", "_low", "_high"))
    before, after = (results[f"{name}/{kind}_reward"] for name in (reference, model))
    verb = "raises" if low > 0 else "lowers" if high < 0 else "does not measurably change"
    share = results.get(f"{model}/gap_closed_share")
    best = f"{reference}'s own best of {stage.manifest.recipe['suites'].get('best_of')}"
    gap = f", {number(share, '_share')} of the way to {best}" if share is not None else ""
    yield (
        f"{model} {verb} the {_REWARDS[kind]} of sampled answers to held-out prompts: {number(before)} → "
        f"{number(after)}, by {'+' if gain > 0 else ''}{number(gain)} (95 % interval {interval('', low, high)}){gap}."
    )
    yield from _price(stage, model, reference)


def _price(stage: StageFacts, model: str, reference: str) -> Iterator[str]:
    kl = stage.results.get(f"{model}/kl_nats_per_response")
    prices = [f"{number(kl)} nats of KL to {reference} a response"] if kl is not None else []
    for metric, words in _PRICES.items():
        before, after = (stage.results.get(f"{name}/{metric}") for name in (reference, model))
        if before is not None and after is not None:
            prices.append(f"{number(before, metric)} → {number(after, metric)} {words}")
    if prices:
        yield f"The price of {model}: {'; '.join(prices)}."
