"""Documents for pretraining: biographies, stories, practice, questions, and graded pages."""

from __future__ import annotations

import random

from scripts.world import words as w
from scripts.world.bank import Bank
from scripts.world.facts import state
from scripts.world.families_text import PEOPLE, story_rows, story_text
from scripts.world.pages import PageMaker, drill_page, graded_page, question_page

DOCUMENT_CHARS = 6_600_000
HELDOUT_DOCUMENTS = 150
ASIDES = (
    "That is good.",
    "It was a fine day.",
    "We know this well.",
    "The sun was warm.",
    "This is how it was.",
    "It was the last day of the week.",
    "They went home between lunch and dinner.",
    "One child can count to ten.",
    "Somebody walked backwards and fell.",
    "There are many words in a book.",
    "How many birds are here today?",
    "He must go home now.",
    "She can teach a child to read.",
    "What would you like to do?",
    "It is a good way to live.",
    "Here it is.",
    "Look at the sky.",
    "You can write a word or a number.",
    "The phone was on the bed.",
    "We all like a plan.",
    "What comes after the rain?",
    "Show me which one it is.",
    "Say what you see.",
    "Do you know the way?",
)


def biography(bank: Bank, rng: random.Random) -> str:
    """What is known of a few people or towns, each fact once, in changing order and words."""
    subjects = rng.sample([*w.NAMES, *w.NAMES, *w.TOWNS], rng.choice((1, 2, 3)))
    told = [fact for fact in bank.facts if fact.subject in subjects]
    if rng.randrange(2) == 0:
        rng.shuffle(told)
    sentences = [state(fact, rng) for fact in told]
    if rng.randrange(3) == 0:
        sentences.insert(rng.randrange(len(sentences) + 1), rng.choice(ASIDES))
    return " ".join(sentences)


def story(bank: Bank, rng: random.Random) -> str:
    """A story that later says again what it said before, so that looking back pays."""
    rows = story_rows(rng.sample(PEOPLE, rng.choice((2, 3, 4))), rng)
    middle = " ".join(rng.sample(ASIDES, rng.choice((0, 1, 2))))
    again = list(rows)
    rng.shuffle(again)
    opening = rng.choice(("", "", "Listen to this. ", "One day it was like this. "))
    closing = rng.choice(("We can say it again.", "So it was.", "Now look back.", "It is true."))
    return " ".join(f"{opening}{story_text(rows)} {middle} {closing} {story_text(again)}".split())


def polite_words(bank: Bank, rng: random.Random) -> str:
    """The remarks and refusals of the chat world, so that their words are known."""
    first, second = rng.sample(PEOPLE, 2)
    lines = rng.sample(ASIDES, 2)
    kind = rng.choice(
        ("We are kind.", "Do not hurt anybody.", "It is not kind to lie or steal.", "Friends help you a lot.")
    )
    return f"{first} said: {lines[0]} {second} said: {lines[1]} {kind}"


# Shares of the characters, in percent.
MIX: tuple[tuple[int, PageMaker], ...] = (
    (14, biography),
    (12, story),
    (2, polite_words),
    (20, drill_page),
    (46, question_page),
    (6, graded_page),
)


def documents(bank: Bank, name: str, chars: int) -> list[dict[str, str]]:
    """Documents of every kind up to their share of `chars`, shuffled."""
    rng = bank.rng(name)
    rows: list[dict[str, str]] = []
    for percent, make in MIX:
        left = chars * percent // 100
        while left > 0:
            rows.append({"text": make(bank, rng)})
            left -= len(rows[-1]["text"])
    rng.shuffle(rows)
    return rows


def heldout_documents(bank: Bank, name: str, known: list[dict[str, str]]) -> list[dict[str, str]]:
    """Documents other than the `known` ones, for bits per byte; their tasks are training tasks, in other company."""
    texts = {row["text"] for row in known}
    return [row for row in documents(bank, name, 100_000) if row["text"] not in texts][:HELDOUT_DOCUMENTS]
