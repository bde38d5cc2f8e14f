"""Reward functions for tests, named in recipes as "tests.rl.planted:..."."""

import os
import random


def vowels(rows, responses, finished):
    """Share of vowels among the characters."""
    return [sum(c in "aeiouAEIOU" for c in text) / max(len(text), 1) for text in responses]


def ones(rows, responses, finished):
    return [1.0] * len(rows)


def kinds(rows, responses, finished):
    """Sees everything it is given."""
    return [10.0 * finished[i] + len(responses[i]) + len(rows[i].turns) * 100 for i in range(len(rows))]


def too_few(rows, responses, finished):
    return [1.0]


def not_a_number(rows, responses, finished):
    return [float("nan")] * len(rows)


def long_tokens(rows, responses, finished):
    """Each token's length in characters; the end token's is 0."""
    return [
        [0.0 if piece.startswith("<|") else float(len(piece)) for piece in pieces] for pieces in responses
    ]


def one_token_short(rows, responses, finished):
    return [[1.0] * (len(pieces) - 1) for pieces in responses]


def words(rows, responses, finished):
    return ["good"] * len(rows)


CALLS = {"left": 10**9}


def failing(rows, responses, finished):
    """As vowels, until there are no calls left."""
    CALLS["left"] -= 1
    return (
        vowels(rows, responses, finished) if CALLS["left"] >= 0 else not_a_number(rows, responses, finished)
    )


SEEN = []


def seen(rows, responses, finished):
    """As vowels; what it is asked of is kept."""
    SEEN.append(rows)
    return vowels(rows, responses, finished)


def failing_tokens(rows, responses, finished):
    """Each token's length in characters, until there are no calls left."""
    CALLS["left"] -= 1
    return [[len(piece) if CALLS["left"] >= 0 else float("nan") for piece in pieces] for pieces in responses]


def dice(rows, responses, finished):
    """As vowels, and some luck: of the process's own generator."""
    return [worth + random.random() for worth in vowels(rows, responses, finished)]


def failing_beside(rows, responses, finished):
    """As vowels, but the second process of a launch has no number for its rows from the third time on."""
    CALLS["beside"] = CALLS.get("beside", 0) + 1
    fails = os.environ.get("RANK") == "1" and CALLS["beside"] > 2
    return not_a_number(rows, responses, finished) if fails else vowels(rows, responses, finished)
