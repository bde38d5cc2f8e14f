"""Signs that a run goes wrong, looked for in every step before its update: each warns or stops, as the recipe says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from aligner.errors import Problem
from aligner.recipe.ppo import GuardSpec, LimitSpec
from aligner.rl.finite import Stopped
from aligner.rl.update import Experience
from aligner.run.progress import say


class Sign(NamedTuple):
    """One guard's finding in one step."""

    guard: str
    what: str
    stops: bool


@dataclass
class Guards:
    """The recipe's guards; each warns once a session, and `warnings` counts those of the step checked last."""

    spec: GuardSpec
    warnings: int = 0
    _told: set[str] = field(default_factory=set)

    def check(self, batch: Experience, *, kl_nats: float, length_ratio: float) -> None:
        """Warn, or Stopped with every sign that stops.

        `kl_nats` is the mean per response, `length_ratio` the mean length over that of the first step.
        """
        signs = list(self.signs(batch, kl_nats=kl_nats, length_ratio=length_ratio))
        if stopping := [sign for sign in signs if sign.stops]:
            raise Stopped([_problem(sign) for sign in stopping])
        self.warnings = len(signs)
        for sign in signs:
            if sign.guard not in self._told:
                say(f"{_problem(sign)}\n    (told once; ppo/guard_warnings counts every step's)")
            self._told.add(sign.guard)

    def signs(self, batch: Experience, *, kl_nats: float, length_ratio: float) -> Iterator[Sign]:
        """What the guards see in a step."""
        values = batch.old_values_BR[batch.rollout.mask_BR].abs()
        largest = float(values.max()) if len(values) else 0.0
        limits: dict[str, tuple[LimitSpec | None, float, str]] = {
            "kl": (self.spec.kl, kl_nats, "the KL to the reference is {:.4g} nats per response"),
            "value": (self.spec.value, largest, "the largest value of a token is {:.4g}"),
            "length": (
                self.spec.length,
                length_ratio,
                "responses are {:.4g} times as long as at the first step",
            ),
        }
        for guard, (rule, seen, words) in limits.items():
            if rule is not None and seen > rule.limit:
                what = f"{words.format(seen)}, more than {rule.limit:g}"
                yield Sign(guard, what, rule.act == "stop")
        if not bool(batch.advantages_BR[batch.rollout.mask_BR].any()):
            what = "every advantage is 0" if len(values) else "no response counts, for none came to its end"
            yield Sign(
                "zero_gradient", f"{what}: the step teaches nothing", self.spec.zero_gradient == "stop"
            )


_REMEDIES = {
    "kl": "raise ppo.kl_coef or steer it with ppo.adaptive_kl, or lower ppo.learning_rate",
    "value": "lower ppo.value_learning_rate, clip the reward, or warm the critic up",
    "length": "see samples.jsonl; a reward may pay for length, and ppo.missing_eos makes endings worth while",
    "zero_gradient": "the rewards do not differ, or sampling.max_new_tokens cuts every response",
}


def _problem(sign: Sign) -> Problem:
    return Problem(f"ppo.guards.{sign.guard}", sign.what, _REMEDIES[sign.guard])
