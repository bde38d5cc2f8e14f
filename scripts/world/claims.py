"""Pages of claims about short texts, true and false, and the easier checks that they are learnt from."""

from __future__ import annotations

import random

from scripts.world.bank import Bank
from scripts.world.families_text import PEOPLE, claim_about, story_rows
from scripts.world.items import Item, split_of
from scripts.world.words import ANIMALS, COLOURS, FOODS, OBJECTS, PLACES

CLAIMS_CHARS = 2_000_000
CHECKS_CHARS = 1_800_000
CHECKED = [*OBJECTS, *PLACES, *FOODS, *ANIMALS, *COLOURS]
# A page keeps to one form, so that what is left to be learnt in it is the verdict.
FORMS = (
    "{c} {a}",
    "{c} True? {a}",
    "Claim: {c} {a}",
    "Is it true that {cl}? {a}",
    "Is this right? {c} {a}",
    "So {c} Yes or no? {a}",
    "We ask if {cl}. The answer is {a}",
)


def claims(bank: Bank) -> list[dict[str, str]]:
    """Pages about one text each, and pages that take another text for every claim."""
    rng = bank.rng("claims")
    rows: list[dict[str, str]] = []
    left = CLAIMS_CHARS
    while left > 0:
        page = rng.choice((_page_about_one_text, _page_of_many_texts))
        rows.append({"text": page(bank, rng)})
        left -= len(rows[-1]["text"])
    return rows


def checks(bank: Bank) -> list[dict[str, str]]:
    """Short pages that name one to three words and say of others, one by one, whether they are among them.

    This is a claim without its sentence. Looking back for a word that may not be there is not learnt from claims
    themselves: after 3000 steps with 16 000 of them every model still guessed; behind these it has it within 700.
    """
    rng = bank.rng("checks")
    rows: list[dict[str, str]] = []
    left = CHECKS_CHARS
    while left > 0:
        given = rng.sample(CHECKED, rng.choice((1, 2, 3)))
        verdicts = " ".join(_among(given, rng) for _ in range(6))
        rows.append({"text": f"{' and '.join(given)}: {verdicts}"})
        left -= len(rows[-1]["text"])
    return rows


def _among(given: list[str], rng: random.Random) -> str:
    yes = rng.randrange(2) == 0
    word = rng.choice(given if yes else [word for word in CHECKED if word not in given])
    return f"{word} {'yes' if yes else 'no'}."


def _page_about_one_text(bank: Bank, rng: random.Random) -> str:
    form = rng.choice(FORMS)
    while True:
        told = story_rows(rng.sample(PEOPLE, rng.choice((1, 2, 2, 3))), rng)
        items = [claim_about(told, rng) for _ in range(rng.choice((4, 5, 6)))]
        if split_of(items[0].key) == "train":
            return " ".join([items[0].slots["text"], *(_verdict(item, form) for item in items)])


def _page_of_many_texts(bank: Bank, rng: random.Random) -> str:
    form = rng.choice(FORMS)
    items = [bank.draw("entail", "train", rng) for _ in range(rng.choice((4, 5, 6)))]
    return "\n".join(f"{item.slots['text']} {_verdict(item, form)}" for item in items)


def _verdict(item: Item, form: str) -> str:
    return form.format(c=item.slots["c"], cl=item.slots["cl"], a=item.answer)
