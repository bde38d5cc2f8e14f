"""What sampled responses look like, whatever they are worth: length, endings, repetition, variety."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ResponseStatistics:
    """Means over responses.

    tokens: length in tokens, the end token included; finished: share that ended with the end token;
    repetition: share of a response's 4-grams that it has already said (0 for responses of fewer than 4 tokens);
    distinct: different texts over all texts.
    """

    tokens: float
    finished: float
    repetition: float
    distinct: float


def response_statistics(
    texts: Sequence[str], token_ids: Sequence[Sequence[int]], finished: Sequence[bool]
) -> ResponseStatistics:
    """Statistics of a set of responses, given as text and as tokens."""
    count = len(texts)
    return ResponseStatistics(
        tokens=sum(map(len, token_ids)) / count,
        finished=sum(finished) / count,
        repetition=sum(repetition_share(ids) for ids in token_ids) / count,
        distinct=len(set(texts)) / count,
    )


def repetition_share(token_ids: Sequence[int], *, n: int = 4) -> float:
    """Share of the n-grams of one response that are repeats of an earlier one.

    By hand, n = 2: a b a b a has ab, ba, ab, ba -> 2 of 4 are repeats -> .5.
    """
    grams = [tuple(token_ids[i : i + n]) for i in range(len(token_ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
