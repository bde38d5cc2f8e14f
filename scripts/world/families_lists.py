"""Families about numbers and lists: their answers follow from a rule, not from memory."""

from __future__ import annotations

import random
from collections.abc import Sequence

from scripts.world import words as w
from scripts.world.items import Item, split_of


def _near(value: int, rng: random.Random) -> tuple[str, ...]:
    """Plausible slips for a number, none of them the number."""
    slips = [value + d for d in (1, -1, 2, -2, 10, -10) if value + d >= 0]
    return tuple(f"{slip}." for slip in rng.sample(slips, 3))


def add_key(a: int, b: int) -> str:
    """Both orders of a sum share a split."""
    return f"add:{min(a, b)}+{max(a, b)}|{a}+{b}"


def add(rng: random.Random) -> Item:
    """A number below 90 and a digit, or a round number of tens; sums of single digits may be seen anywhere."""
    a = rng.randrange(10, 90)
    b = rng.randrange(1, 10) if rng.randrange(4) else 10 * rng.randrange(1, 10 - a // 10)
    if rng.randrange(3) == 0:
        a, b = b, a
    return Item("add", add_key(a, b), "add", {"x": f"{a} + {b}"}, (f"{a + b}.",), _near(a + b, rng))


def _steps_text(numbers: Sequence[int], slip: int = 0) -> str:
    """The sums one by one; a slip goes into the last of them, or into the first if it is negative."""
    total, lines = numbers[0], []
    at = 1 if slip < 0 else len(numbers) - 1
    for i, number in enumerate(numbers[1:], start=1):
        result = total + number + (slip if i == at else 0)
        lines.append(f"{total} + {number} = {result}.")
        total = result
    return " ".join([*lines, f"So {total}."])


def _steps_numbers(rng: random.Random) -> list[int]:
    """Numbers whose partial sums are no kept-back sum of the `add` family."""
    while True:
        numbers = [rng.randrange(1, 30), rng.randrange(1, 10), rng.randrange(1, 10)]
        total, free = numbers[0], True
        for number in numbers[1:]:
            free = free and (total < 10 or split_of(add_key(total, number)) == "train")
            total += number
        if free:
            return numbers


def steps(rng: random.Random) -> Item:
    """A sum of three, worked out one step at a time."""
    numbers = _steps_numbers(rng)
    text = " + ".join(map(str, numbers))
    total = sum(numbers)
    early = numbers[0] + numbers[1] - 1
    free = early < 10 or split_of(add_key(early, numbers[2])) == "train"
    wrongs = [_steps_text(numbers, slip) for slip in (1, 2, -1 if free else 10)]
    answers = (_steps_text(numbers), f"So {total}.", f"{total}.")
    return Item("steps", f"steps:{text}", "steps", {"x": text}, answers, tuple(wrongs))


def _shuffles(right: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    """Three different wrong orders of a list, near misses first."""
    found: list[str] = []
    while len(found) < 3:
        order = list(right)
        i = rng.randrange(len(order) - 1)
        order[i], order[i + 1] = order[i + 1], order[i]
        if found:
            rng.shuffle(order)
        text = " ".join(order) + "."
        if order != list(right) and text not in found:
            found.append(text)
    return tuple(found)


def sort(rng: random.Random) -> Item:
    """Three or four digits, or three number words; one set of things stays in one split."""
    pool = rng.choice((list("0123456789"), list("0123456789"), w.NUMBERS))
    right = sorted(rng.sample(pool, 3 if pool is w.NUMBERS else rng.choice((3, 4))), key=pool.index)
    given = list(right)
    while given == right:
        rng.shuffle(given)
    x = " ".join(given)
    return Item(
        "sort",
        f"sort:{' '.join(right)}|{x}",
        "sort",
        {"x": x},
        (" ".join(right) + ".",),
        _shuffles(right, rng),
    )


def _spoilt(given: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    """A copied list with a word changed, left out, or out of place."""
    changed, missing, swapped = list(given), list(given), list(given)
    changed[rng.randrange(len(given))] = rng.choice([word for word in w.COPY_WORDS if word not in given])
    missing.pop(rng.randrange(len(given)))
    i = rng.randrange(len(given) - 1)
    swapped[i], swapped[i + 1] = swapped[i + 1], swapped[i]
    return tuple(" ".join(words) + "." for words in (changed, missing, swapped))


def copy(rng: random.Random) -> Item:
    """A list of words to say again."""
    given = rng.sample(w.COPY_WORDS, rng.choice((3, 4, 5)))
    x = " ".join(given)
    return Item("copy", f"copy:{x}", "copy", {"x": x}, (x + ".",), _spoilt(given, rng))


def edit(rng: random.Random) -> Item:
    """A short sentence in which one word is to become another."""
    colour, thing, place = rng.choice(w.COLOURS), rng.choice(w.OBJECTS), rng.choice(w.PLACES)
    sentence = f"the {colour} {thing} is in the {place}"
    old, pool = rng.choice(((colour, w.COLOURS), (thing, w.OBJECTS), (place, w.PLACES)))
    options = [word for word in pool if word not in sentence.split()]
    new, other = rng.sample(options, 2)
    if old == thing and thing == place:
        return edit(rng)
    changed = [s for s in (colour, thing, place) if s != old]
    wrongs = (
        sentence,
        sentence.replace(f" {old}", f" {other}"),
        sentence.replace(f" {changed[0]}", f" {new}"),
    )
    key = f"edit:{sentence} {old}>{new}"
    slots = {"s": sentence, "a": old, "b": new}
    return Item(
        "edit",
        key,
        "edit",
        slots,
        (sentence.replace(f" {old}", f" {new}") + ".",),
        tuple(f"{t}." for t in wrongs),
    )


def _series(rng: random.Random) -> list[str]:
    """Four members of an ordered row, in steps up or down."""
    kind = rng.randrange(12)
    step = rng.choice((1, 1, 2, 5, 10))
    if kind < 6:
        start = rng.randrange(0, 100 - 3 * step)
        return [str(start + i * step) for i in range(4)]
    if kind < 9:
        start = rng.randrange(3 * step, 100)
        return [str(start - i * step) for i in range(4)]
    row = rng.choice((w.DAYS, w.MONTHS, w.NUMBERS))
    start = rng.randrange(0, len(row) - 3)
    return row[start : start + 4]


def complete(rng: random.Random) -> Item:
    """The next member of a row of three; rows of one length, so that none contains another."""
    row = _series(rng)
    x = ", ".join(row[:3]) + ","
    if row[3].isdigit():
        wrongs = _near(int(row[3]), rng)
    else:
        order = next(r for r in (w.DAYS, w.MONTHS, w.NUMBERS) if row[3] in r)
        wrongs = tuple(f"{word}." for word in rng.sample([word for word in order if word != row[3]], 3))
    return Item("complete", f"complete:{' '.join(row)}", "complete", {"x": x}, (f"{row[3]}.",), wrongs)


def compare(rng: random.Random) -> Item:
    """Which of two numbers is larger or smaller; their tens differ."""
    tens = rng.sample(range(10), 2)
    a, b = (10 * ten + rng.randrange(1 if ten == 0 else 0, 10) for ten in tens)
    want = rng.choice(("larger", "smaller"))
    right, wrong = (max(a, b), min(a, b)) if want == "larger" else (min(a, b), max(a, b))
    key = f"compare:{min(a, b)} {max(a, b)}|{a} {b} {want}"
    return Item(
        "compare", key, "compare", {"a": str(a), "b": str(b), "w": want}, (f"{right}.",), (f"{wrong}.",)
    )


def reverse(rng: random.Random) -> Item:
    """Held-out family: a list backwards."""
    given = rng.sample(w.COPY_WORDS, rng.choice((3, 4)))
    x, back = " ".join(given), " ".join(reversed(given))
    return Item("reverse", f"reverse:{x}", "reverse", {"x": x}, (back + ".",), (x + ".",))


def count(rng: random.Random) -> Item:
    """Held-out family: how many words."""
    given = rng.sample(w.COPY_WORDS, rng.choice((2, 3, 4, 5, 6)))
    n = len(given)
    answers = (f"{n}.", f"{w.NUMBERS[n - 1]}.", f"{n} words.")
    return Item("count", f"count:{' '.join(given)}", "count", {"x": " ".join(given)}, answers, _near(n, rng))


def last(rng: random.Random) -> Item:
    """Held-out family: the last word of a list."""
    given = rng.sample(w.COPY_WORDS, rng.choice((3, 4, 5)))
    x = " ".join(given)
    wrongs = tuple(f"{word}." for word in given[:2])
    return Item("last", f"last:{x}", "last", {"x": x}, (f"{given[-1]}.",), wrongs)


def between(rng: random.Random) -> Item:
    """Held-out family: the number between two others."""
    a = rng.randrange(1, 97)
    slots = {"a": str(a), "b": str(a + 2)}
    return Item(
        "between",
        f"between:{a} {a + 2}",
        "between",
        slots,
        (f"{a + 1}.",),
        (f"{a}.", f"{a + 2}.", f"{a + 3}."),
    )
