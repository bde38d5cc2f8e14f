"""Reward functions for tests, named in recipes as "tests.rl.planted:..."."""


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
