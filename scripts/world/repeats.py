"""Pieces of the world's own documents said again at once: what looking back is learnt from."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence

from scripts.world.bank import Bank
from scripts.world.words import COPY_WORDS, NUMBERS

REPEATS_CHARS = 1_900_000  # about 4000 blocks of 128 tokens
PIECES = (20, 30)  # in a document
PIECE_WORDS = (2, 9)
TIMES = (2, 3)
LISTED = frozenset((*COPY_WORDS, *NUMBERS, "+", "="))


def repeats(bank: Bank, known: Sequence[dict[str, str]], withheld: Collection[str]) -> list[dict[str, str]]:
    """Documents of pieces of the `known` ones, each piece said two or three times in a row.

    A model that meets these learns early to look for what it has read before and to say what came next there
    (induction heads); in stories and exercises alone there is so little of it that not every seed had learnt to copy
    after 3000 steps. No `withheld` prompt arises where pieces meet, whatever its case and marks.
    """
    rng = bank.rng("repeats")
    texts = [row["text"].split() for row in known]
    prompts = _by_first_word(withheld)
    rows: list[dict[str, str]] = []
    left = REPEATS_CHARS
    while left > 0:
        words = _document(texts, rng)
        if not _states_any(words, prompts):
            rows.append({"text": " ".join(words)})
            left -= len(rows[-1]["text"])
    return rows


def _document(texts: Sequence[list[str]], rng: random.Random) -> list[str]:
    """Some pieces in a row; none goes on with a list that the one before it ends in."""
    words: list[str] = []
    for _ in range(rng.randint(*PIECES)):
        piece = said_again(texts, rng)
        while _inside_list([*words[-1:], piece[0]], 1):
            piece = said_again(texts, rng)
        words += piece
    return words


def said_again(texts: Sequence[list[str]], rng: random.Random) -> list[str]:
    """A piece cut at a random place of a random text, two or three times in a row.

    A claim said again would be a claim about itself: an item that may be held out.
    """
    while True:
        words = rng.choice(texts)
        length = min(rng.randint(*PIECE_WORDS), len(words))
        start = rng.randrange(len(words) - length + 1)
        piece = words[start : start + length]
        split = _inside_list(words, start) or _inside_list(words, start + length)
        if not (split or _inside_list([piece[-1], piece[0]], 1) or "Claim:" in piece):
            return piece * rng.choice(TIMES)


def _by_first_word(prompts: Collection[str]) -> dict[str, set[tuple[str, ...]]]:
    """The bare words of each prompt, to be looked up by the first."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for prompt in prompts:
        words = _bare(prompt)
        found.setdefault(words[0], set()).add(words)
    return found


def _states_any(words: Sequence[str], prompts: dict[str, set[tuple[str, ...]]]) -> bool:
    """Whether one of the prompts stands in the words."""
    bare = _bare(" ".join(words))
    return any(
        bare[i : i + len(prompt)] == prompt for i, word in enumerate(bare) for prompt in prompts.get(word, ())
    )


def _bare(text: str) -> tuple[str, ...]:
    return tuple(re.sub(r"[^a-z0-9+=-]", " ", text.lower()).split())


def _inside_list(words: Sequence[str], place: int) -> bool:
    """Whether a cut before `place` splits a list or a sum: what is left of it may be an item that is held out."""
    around = words[max(place - 1, 0) : place + 1]
    return len(around) == 2 and all(_listed(word) for word in around)


def _listed(word: str) -> bool:
    bare = word.rstrip(".,:?")
    return bare in LISTED or bare.isdigit()
