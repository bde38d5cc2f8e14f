"""Chat for pretraining, so that the base model has met the turns of a conversation."""

from __future__ import annotations

import random

from scripts.world import words as w
from scripts.world.bank import Bank
from scripts.world.noise import demonstration
from scripts.world.pages import asked, some_family

DIALOGUES = 11_000
GREETINGS = (
    ("Hello.", "Hello. How can I help you?"),
    ("Good morning.", "Good morning. What can I do for you?"),
    ("Hello, how are you?", "I am well. How can I help you?"),
    ("Hello, I am {n}.", "Hello {n}. How can I help you?"),
    ("Thank you.", "You are welcome."),
    ("Thank you for the help.", "You are welcome."),
    ("Good night.", "Good night."),
    ("I am happy today.", "That is nice."),
    ("I am sad.", "I am sorry. Can I help you?"),
    ("Can you help me?", "Yes, I can help you."),
    ("Are you there?", "Yes, I am here."),
    ("My name is {n}.", "Hello {n}."),
)

Message = dict[str, str]


def _turn(user: str, assistant: str) -> list[Message]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def _greeting(rng: random.Random) -> list[Message]:
    user, assistant = rng.choice(GREETINGS)
    name = rng.choice(w.NAMES)
    return _turn(user.format(n=name), assistant.format(n=name))


def _exercise(bank: Bank, rng: random.Random) -> list[Message]:
    item = bank.draw(some_family(bank, rng), "train", rng)
    return _turn(asked(item, rng), demonstration(item, rng)[0])


def dialogues(bank: Bank) -> list[dict[str, list[Message]]]:
    """Talks of one or two exchanges: exercises, and some small talk before or after them."""
    rng = bank.rng("dialogues")
    rows = []
    for _ in range(DIALOGUES):
        kind = rng.randrange(10)
        messages = _greeting(rng) if kind < 2 else _exercise(bank, rng)
        if kind in (1, 2, 3):
            messages = [*messages, *_exercise(bank, rng)]
        rows.append({"messages": messages})
    return rows
