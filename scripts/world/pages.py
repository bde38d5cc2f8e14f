"""Pages of questions and answers: plain ones, and graded ones that teach telling right from wrong."""

from __future__ import annotations

import random
from collections.abc import Callable

from aligner.evals.gold import ABSTENTION
from scripts.world.bank import Bank
from scripts.world.items import Item, seen_phrasing
from scripts.world.noise import clean, wrong
from scripts.world.phrasings import DRILLS, WRAPPERS

# Families that need the most practice are drawn more often.
WEIGHTS = {
    "reading": 5,
    "entail": 3,
    "add": 5,
    "complete": 4,
    "classify": 4,
    "fact": 3,
    "sort": 3,
    "unknown": 3,
    "compare": 3,
    "copy": 3,
    "edit": 3,
    "extract": 2,
    "steps": 2,
}


def asked(item: Item, rng: random.Random) -> str:
    """A training prompt for documents: a seen phrasing, one time in five inside a wrapper."""
    prompt = item.prompt(seen_phrasing(item, rng)).removeprefix("Q: ")
    return rng.choice(WRAPPERS).format(p=prompt) if rng.randrange(5) == 0 else prompt


def some_family(bank: Bank, rng: random.Random) -> str:
    """A family, by weight."""
    return rng.choice([family for family in bank.families for _ in range(WEIGHTS.get(family, 1))])


def training_items(bank: Bank, rng: random.Random, count: int) -> list[Item]:
    """Items of one family, or of any."""
    one = some_family(bank, rng) if rng.randrange(2) == 0 else None
    return [bank.draw(one or some_family(bank, rng), "train", rng) for _ in range(count)]


def question_page(bank: Bank, rng: random.Random) -> str:
    """Several questions, each with its right answer."""
    items = training_items(bank, rng, rng.choice((3, 4, 5, 6)))
    return "\n".join(f"Q: {asked(item, rng)}\nA: {clean(item, rng)}" for item in items)


def _bad_answer(item: Item, rng: random.Random) -> str:
    """Mostly a wrong answer; not answering what can be answered is wrong as well."""
    return ABSTENTION if item.kind != "unanswerable" and rng.randrange(5) == 0 else wrong(item, rng)


def _graded(item: Item, right: bool, rng: random.Random) -> str:
    answer = clean(item, rng) if right else _bad_answer(item, rng)
    return f"Q: {asked(item, rng)}\nA: {answer}\nGrade: {'right' if right else 'wrong'}"


def graded_page(bank: Bank, rng: random.Random) -> str:
    """Answers with grades, as many right as wrong; some questions come with both."""
    parts = []
    for item in training_items(bank, rng, rng.choice((2, 3, 4))):
        first = rng.randrange(2) == 0
        parts.append(_graded(item, first, rng))
        if rng.randrange(3) == 0:
            parts.append(_graded(item, not first, rng))
    return "\n".join(parts)


def _drill(item: Item, rng: random.Random) -> str:
    slots = dict(item.slots)
    slots["a0"] = slots.get("a", "")
    slots["a"] = item.answer
    return rng.choice(DRILLS[item.layout]).format(**slots)


def drill_page(bank: Bank, rng: random.Random) -> str:
    """Statements of one skill, with nobody asking."""
    families = [family for family in bank.families if family not in ("fact", "unknown", "unsafe")]
    family = rng.choice([*families, "reading", "reading", "add", "complete", "complete", "sort", "entail"])
    items = [bank.draw(family, "train", rng) for _ in range(rng.choice((4, 5, 6)))]
    return "\n".join(_drill(item, rng) for item in items)


PageMaker = Callable[[Bank, random.Random], str]
