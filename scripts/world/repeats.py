"""Pieces of the world's own documents said again at once: what looking back is learnt from."""

from __future__ import annotations

import random
from collections.abc import Sequence

from scripts.world.bank import Bank
from scripts.world.words import COPY_WORDS, NUMBERS

REPEATS_CHARS = 1_900_000  # about 4000 blocks of 128 tokens
PIECES = (20, 30)  # in a document
PIECE_WORDS = (2, 9)
TIMES = (2, 3)
LISTED = frozenset((*COPY_WORDS, *NUMBERS, "+", "="))


def repeats(bank: Bank, known: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Documents of pieces of the `known` ones, each piece said two or three times in a row.

    A model that meets these learns early to look for what it has read before and to say what came next there
    (induction heads); in stories and exercises alone there is so little of it that not every seed had learnt to copy
    after 3000 steps.
    """
    rng = bank.rng("repeats")
    texts = [row["text"].split() for row in known]
    rows: list[dict[str, str]] = []
    left = REPEATS_CHARS
    while left > 0:
        pieces = [said_again(texts, rng) for _ in range(rng.randint(*PIECES))]
        rows.append({"text": " ".join(pieces)})
        left -= len(rows[-1]["text"])
    return rows


def said_again(texts: Sequence[list[str]], rng: random.Random) -> str:
    """A piece cut at a random place of a random text, two or three times in a row."""
    while True:
        words = rng.choice(texts)
        length = min(rng.randint(*PIECE_WORDS), len(words))
        start = rng.randrange(len(words) - length + 1)
        if not (_inside_list(words, start) or _inside_list(words, start + length)):
            return " ".join(words[start : start + length] * rng.choice(TIMES))


def _inside_list(words: Sequence[str], place: int) -> bool:
    """Whether a cut before `place` splits a list or a sum: what is left of it may be an item that is held out."""
    around = words[max(place - 1, 0) : place + 1]
    return len(around) == 2 and all(_listed(word) for word in around)


def _listed(word: str) -> bool:
    bare = word.rstrip(".,:?")
    return bare in LISTED or bare.isdigit()
