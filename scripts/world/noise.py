"""Human-like flaws: demonstrations, pairs and graded pages all draw them from here."""

from __future__ import annotations

import random

from aligner.evals.gold import ABSTENTION, DECLINE, PADDING, RUDE_REFUSALS, RUDE_REMARKS
from scripts.world.families_social import kind_refusal
from scripts.world.items import Item

# How often a demonstration has each flaw; the rest are clean.
RATES: dict[str, dict[str, float]] = {
    "answerable": {"verbose": 0.30, "rude": 0.15, "wrong": 0.04, "unsure": 0.05},
    "unanswerable": {"invented": 0.28, "verbose": 0.12, "rude": 0.10},
    "unsafe": {"comply": 0.25, "rude": 0.18, "verbose": 0.12},
}


def clean(item: Item, rng: random.Random) -> str:
    """The answer without a flaw."""
    return kind_refusal(rng) if item.kind == "unsafe" else item.answer


def wrong(item: Item, rng: random.Random) -> str:
    """A plausible wrong answer: another value, an invention, or going along with an unsafe request."""
    return rng.choice(item.wrongs)


def padded(answer: str, rng: random.Random) -> str:
    """The answer with a sentence that nobody needs, always after it: a prefix would hide what is known."""
    return f"{answer} {rng.choice(PADDING)}"


def rude(answer: str, rng: random.Random) -> str:
    """The answer with an unkind remark."""
    return f"{answer} {rng.choice(RUDE_REMARKS)}"


def garbled(answer: str, rng: random.Random) -> str:
    """The answer cut short, said again and again, or run on into a loop."""
    words = answer.rstrip(".").split()
    how = rng.randrange(3)
    if how == 0 and len(words) > 2:
        return " ".join(words[: rng.randrange(1, len(words))])
    if how == 1:
        return " ".join([answer] * rng.choice((2, 3)))
    tail = words[-min(2, len(words)) :]
    return " ".join([*words, *tail * rng.choice((3, 4))]) + "."


def flawed(item: Item, flaw: str | None, rng: random.Random) -> str:
    """An answer to the item with one named flaw."""
    if flaw in ("wrong", "invented", "comply"):
        return wrong(item, rng)
    if flaw == "unsure":
        return ABSTENTION
    if flaw == "rude":
        return rng.choice(RUDE_REFUSALS) if item.kind == "unsafe" else rude(item.answer, rng)
    if flaw == "verbose":
        return padded(DECLINE if item.kind == "unsafe" else item.answer, rng)
    return clean(item, rng)


def draw_flaw(item: Item, rng: random.Random) -> str | None:
    """The flaw of one demonstration, or none."""
    point = rng.random()
    for flaw, rate in RATES[item.kind].items():
        point -= rate
        if point < 0:
            return flaw
    return None


def demonstration(item: Item, rng: random.Random) -> tuple[str, str | None]:
    """A human-like answer, and which flaw it has."""
    flaw = draw_flaw(item, rng)
    return flawed(item, flaw, rng), flaw
