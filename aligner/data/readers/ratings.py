"""Format `ratings`: {"prompt", "answers": [{"text", "ratings": {criterion: number}}]} rows.

Feedback by questions about each answer (survey arXiv:2303.18223, 5.2.2; WebGPT, arXiv:2112.09332, asks such questions).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aligner.data.readers.rankings import check_rankable, scored_pairs
from aligner.data.readers.records import Record, fault
from aligner.data.rows import Dropped, Pair, Rated

Marks = dict[str, list[float | None]]


def read_ratings(
    record: Record, criteria: Mapping[str, float] | None = None
) -> Iterator[Pair | Dropped | Rated]:
    """All pairs of the answers, the better rated one chosen; two rated the same are a `tie`.

    A rating is a number, or a list of several annotators' (null where one gave none), whose mean counts; such lists
    are also given as `Rated`. criteria: the weight of each criterion that counts (more is better; a negative weight
    turns that round); all that the row has, 1 each, when empty or None. An answer that lacks a rating for a criterion
    that counts is `unrated`, since its sum cannot be compared.
    """
    answers = record.records("answers")
    check_rankable(record, "answers", answers)
    marks = [_marks(answer) for answer in answers]
    weights = criteria or {name: 1.0 for given in marks for name in given}
    scored: list[tuple[str, float]] = []
    for answer, given in zip(answers, marks, strict=True):
        shared = {name: tuple(given[name]) for name in weights if len(given.get(name, ())) > 1}
        yield from (Rated(record.origin, name, values) for name, values in shared.items())
        means = {name: _mean(given.get(name, [])) for name in weights}
        score = sum(weight * (means[name] or 0.0) for name, weight in weights.items())
        if None in means.values():
            yield Dropped(record.origin, "unrated")
        else:
            scored.append((answer.text("text"), score))
    yield from scored_pairs(record.origin, record.prompt(), scored, kind=record.text("kind", default=""))


def _marks(answer: Record) -> Marks:
    """An answer's ratings by criterion, each as a list over its annotators."""
    if not answer.mapping("ratings"):
        raise fault(answer.origin, 'an answer has no "ratings"', "rate every answer: {criterion: number}")
    ratings = Record(answer.origin, answer.mapping("ratings"))
    return {name: _numbers(ratings, name) for name in ratings.value}


def _numbers(ratings: Record, name: str) -> list[float | None]:
    value = ratings.value[name]
    if not isinstance(value, list):
        return [ratings.number(name)]
    return [Record(ratings.origin, {name: entry}).number(name) for entry in value]


def _mean(marks: list[float | None]) -> float | None:
    given = [mark for mark in marks if mark is not None]
    return sum(given) / len(given) if given else None
