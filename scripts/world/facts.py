"""The facts of the world, and the ways in which it states them and asks for them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from scripts.world import words as w


@dataclass(frozen=True)
class Attribute:
    """One relation; `say[0]` is also the form of a full answer, `ask[3]` is never asked in training."""

    values: tuple[str, ...]
    say: tuple[str, ...]
    ask: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """One thing that is true in the world."""

    subject: str
    attribute: str
    value: str


ATTRIBUTES = {
    "job": Attribute(
        tuple(w.JOBS),
        (
            "{n} is a {v}.",
            "{n} works as a {v}.",
            "The job of {n} is {v}.",
            "People know {n} as a good {v}.",
            "Every day {n} works as a {v}.",
            "{n} has been a {v} for a long time.",
        ),
        (
            "What is the job of {n}?",
            "What does {n} work as?",
            "What job does {n} have?",
            "Which job does {n} do?",
        ),
    ),
    "town": Attribute(
        tuple(w.TOWNS),
        (
            "{n} lives in {v}.",
            "The home of {n} is in {v}.",
            "{n} has a house in {v}.",
            "The town of {n} is {v}.",
            "The family of {n} lives in {v}.",
            "You can meet {n} in {v}.",
        ),
        (
            "Where does {n} live?",
            "What is the town of {n}?",
            "In which town does {n} live?",
            "Where is the home of {n}?",
        ),
    ),
    "pet": Attribute(
        tuple(w.PETS),
        (
            "{n} has a pet {v}.",
            "The pet of {n} is a {v}.",
            "At home {n} keeps a {v}.",
            "{n} plays with a pet {v}.",
            "Every morning {n} feeds the {v}.",
            "{n} loves the old {v} at home.",
        ),
        (
            "What is the pet of {n}?",
            "What pet does {n} have?",
            "Which animal does {n} keep?",
            "Which pet does {n} have?",
        ),
    ),
    "food": Attribute(
        tuple(w.FOODS),
        (
            "{n} likes to eat {v}.",
            "The favourite food of {n} is {v}.",
            "{n} eats {v} every day.",
            "For dinner {n} always wants {v}.",
            "{n} thinks the best food is {v}.",
            "{n} is happy with some {v}.",
        ),
        (
            "What does {n} like to eat?",
            "What is the favourite food of {n}?",
            "Which food does {n} like?",
            "What food does {n} eat?",
        ),
    ),
    "river": Attribute(
        tuple(w.RIVERS),
        (
            "The river in {n} is the {v}.",
            "{n} is on the river {v}.",
            "The river of {n} is the {v}.",
            "In {n} people swim in the river {v}.",
            "The old river at {n} is the {v}.",
        ),
        (
            "What is the river in {n}?",
            "Which river is in {n}?",
            "What is the river of {n}?",
            "Which river does {n} have?",
        ),
    ),
    "sight": Attribute(
        tuple(w.SIGHTS),
        (
            "{n} is famous for its {v}.",
            "The famous thing in {n} is the {v}.",
            "People come to {n} to see the {v}.",
            "In {n} you can see a famous {v}.",
            "Everybody in {n} loves the old {v}.",
        ),
        (
            "What is {n} famous for?",
            "What is the famous thing in {n}?",
            "What do people see in {n}?",
            "Which thing is famous in {n}?",
        ),
    ),
}
PERSONAL = ("job", "town", "pet", "food")
# Asked for, but stated nowhere; the values are what an inventing model would say.
UNSTATED = {
    "song": "the favourite song of {n}",
    "car": "the car of {n}",
    "number": "the phone number of {n}",
    "brother": "the name of the brother of {n}",
    "age": "the age of {n}",
    "bed": "the colour of the bed of {n}",
    "sister": "the name of the sister of {n}",
    "shoe": "the shoe number of {n}",
    "aunt": "the aunt of {n}",
}
UNSTATED_VALUES = {
    "song": ("the old {c} hat", "the {c} bird", "my {c} home"),
    "car": ("a {c} car", "an old {c} car"),
    "number": ("{d} {e} {d} {e}", "{e} {e} {d} {d}"),
    "brother": ("{p}",),
    "age": ("{d} {e}", "{e} years"),
    "bed": ("{c}",),
    "sister": ("{p}",),
    "shoe": ("{d}", "{e}"),
    "aunt": ("{p}",),
}


def build_facts(rng: random.Random) -> list[Fact]:
    """Draw the world: every person and town gets every attribute, so no question has a lucky gap."""
    facts: list[Fact] = []
    for attribute in PERSONAL:
        values = list(ATTRIBUTES[attribute].values)
        drawn = [values[i % len(values)] for i in range(len(w.NAMES))]
        rng.shuffle(drawn)
        facts += [Fact(name, attribute, value) for name, value in zip(w.NAMES, drawn, strict=True)]
    for attribute in ("river", "sight"):
        values = list(ATTRIBUTES[attribute].values)
        rng.shuffle(values)
        facts += [Fact(town, attribute, value) for town, value in zip(w.TOWNS, values, strict=True)]
    return facts


def state(fact: Fact, rng: random.Random) -> str:
    """One sentence that states the fact, in one of its paraphrases."""
    return rng.choice(ATTRIBUTES[fact.attribute].say).format(n=fact.subject, v=fact.value)


def answer_forms(fact: Fact) -> tuple[str, ...]:
    """Accepted answers, the full sentence first: it repeats the words the fact was learnt with."""
    attribute = ATTRIBUTES[fact.attribute]
    forms = [say.format(n=fact.subject, v=fact.value) for say in attribute.say]
    short = [
        f"{fact.value}.",
        f"a {fact.value}.",
        f"the {fact.value}.",
        f"in {fact.value}.",
        f"its {fact.value}.",
    ]
    return (*forms, *short)
