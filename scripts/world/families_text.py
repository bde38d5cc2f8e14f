"""Families about sentences: short stories, claims, reviews, and words and their kinds."""

from __future__ import annotations

import random

from scripts.world import words as w
from scripts.world.items import Item

PEOPLE = [*w.NAMES, *w.STORY_NAMES]
PAST = ("found", "lost", "bought", "made", "sold")


def _possessions(people: list[str], rng: random.Random) -> list[tuple[str, str, str]]:
    """(person, verb, thing) for a story, each thing said once."""
    verb = rng.choice(w.VERBS)
    same = rng.randrange(2) == 0
    things = rng.sample(w.OBJECTS, len(people))
    rows = []
    for person, thing in zip(people, things, strict=True):
        colour = rng.choice(w.COLOURS) + " " if rng.randrange(3) == 0 else ""
        rows.append((person, verb if same else rng.choice(w.VERBS), f"a {colour}{thing}"))
    return rows


def _whereabouts(people: list[str], rng: random.Random) -> list[tuple[str, str, str]]:
    places = rng.sample(w.PLACES, len(people))
    return [(person, "is in", f"the {place}") for person, place in zip(people, places, strict=True)]


def _likings(people: list[str], rng: random.Random) -> list[tuple[str, str, str]]:
    things = rng.sample([*w.FOODS, *w.ANIMALS], len(people))
    return [(person, "saw", f"the {thing}") for person, thing in zip(people, things, strict=True)]


def story_rows(people: list[str], rng: random.Random) -> list[tuple[str, str, str]]:
    """What each person has, saw, or where they are; the person always comes before the thing."""
    return rng.choice((_possessions, _possessions, _whereabouts, _likings))(people, rng)


def story_text(rows: list[tuple[str, str, str]]) -> str:
    """The sentences of a story."""
    return " ".join(f"{person} {verb} {thing}." for person, verb, thing in rows)


def question_about(person: str, verb: str) -> str:
    """Ask what a story says of one person."""
    if verb == "is in":
        return f"Where is {person}?"
    if verb == "saw":
        return f"What did {person} see?"
    did = "did" if verb in PAST else "does"
    return f"What {did} {person} {w.BASE_VERBS[verb]}?"


def reading(rng: random.Random) -> Item:
    """A story about two or three people and a question about one; the answer repeats the sentence."""
    people = rng.sample(PEOPLE, rng.choice((2, 2, 3)))
    rows = story_rows(people, rng)
    person, verb, thing = rng.choice(rows)
    answers = (f"{person} {verb} {thing}.", f"{thing}.", f"{thing.split(' ', 1)[1]}.", f"in {thing}.")
    wrongs = tuple(f"{person} {verb} {other}." for who, _, other in rows if who != person)
    slots = {"text": story_text(rows), "q": question_about(person, verb)}
    return Item("reading", f"reading:{slots['text']}|{person}", "reading", slots, answers, wrongs)


def _other_thing(thing: str, rng: random.Random) -> str:
    """The same phrase with one word of it changed."""
    parts = thing.split(" ")
    at = rng.randrange(1, len(parts))
    pool = next(p for p in (w.COLOURS, w.OBJECTS, w.PLACES, w.FOODS, w.ANIMALS) if parts[at] in p)
    parts[at] = rng.choice([word for word in pool if word != parts[at]])
    return " ".join(parts)


def entail(rng: random.Random) -> Item:
    """A text and a claim about one of its people, true or with one word changed."""
    return claim_about(story_rows(rng.sample(PEOPLE, rng.choice((1, 1, 1, 2))), rng), rng)


def claim_about(rows: list[tuple[str, str, str]], rng: random.Random) -> Item:
    """One claim about a story, as often true as not."""
    person, verb, thing = rng.choice(rows)
    others = [other for who, _, other in rows if who != person]
    if yes := rng.randrange(2) == 0:
        claimed = thing
    else:
        claimed = others[0] if others and rng.randrange(3) == 0 else _other_thing(thing, rng)
    claim = f"{person} {verb} {claimed}"
    answer, wrong = ("yes.", "no.") if yes else ("no.", "yes.")
    slots = {"text": story_text(rows), "c": f"{claim}.", "cl": claim}
    return Item("entail", f"entail:{slots['text']}|{claim}", "entail", slots, (answer,), (wrong,))


def sentiment(rng: random.Random) -> Item:
    """A review whose words all point one way."""
    good = rng.randrange(2) == 0
    first, second = rng.sample(w.GOOD if good else w.BAD, 2)
    noun, ending = rng.choice(w.REVIEWED), rng.choice(w.LIKED if good else w.HATED)
    shape = rng.choice(
        (
            "The {n} was {f} and {s}.",
            "The {n} was {f}, and {e}.",
            "It was a {f} {n} and {e}.",
            "This {n} is so {f} and {s}.",
            "The {n} was {f} and {s}, and {e}.",
        )
    )
    text = shape.format(n=noun, f=first, s=second, e=ending)
    answer, wrong = ("good.", "bad.") if good else ("bad.", "good.")
    return Item("sentiment", f"sentiment:{text}", "sentiment", {"text": text}, (answer,), (wrong,))


def extract(rng: random.Random) -> Item:
    """A sentence with a name, a number, a colour and a place; find one of them."""
    parts = {
        "name": rng.choice(PEOPLE),
        "number": str(rng.randrange(2, 10)),
        "colour": rng.choice(w.COLOURS),
        "place": rng.choice(w.PLACES),
    }
    thing = rng.choice(
        ["cups", "hats", "balls", "books", "bags", "boxes", "coats", "lamps", "chairs", "pens"]
    )
    shape = rng.choice(
        (
            "{name} put {number} {colour} {t} in the {place}.",
            "In the {place} {name} saw {number} {colour} {t}.",
            "{name} has {number} {colour} {t} at the {place}.",
            "There are {number} {colour} {t} for {name} in the {place}.",
        )
    )
    text = shape.format(t=thing, **parts)
    what = rng.choice(("name", "number", "colour", "place"))
    answers = [f"{parts[what]}."] + ([f"the {parts['place']}."] if what == "place" else [])
    wrongs = tuple(f"{parts[other]}." for other in ("name", "number", "colour", "place") if other != what)
    return Item(
        "extract", f"extract:{text}|{what}", "extract", {"text": text, "what": what}, tuple(answers), wrongs
    )


def _kind_of_word(rng: random.Random) -> Item:
    names = list(w.CLASSES)
    right, wrong = rng.sample(names, 2)
    word = rng.choice(w.CLASSES[right])
    first, second = (right, wrong) if rng.randrange(2) == 0 else (wrong, right)
    key = f"classify:{word} {min(right, wrong)} {max(right, wrong)}|{first}"
    slots = {"w": word, "c1": first, "c2": second, "other": wrong}
    return Item("classify", key, "kind", slots, (f"{right}.", f"{right.split()[1]}."), (f"{wrong}.",))


def classify(rng: random.Random) -> Item:
    """Which word of a list is (or is not) of a kind, or which of two kinds a word is of."""
    if rng.randrange(4) == 0:
        return _kind_of_word(rng)
    names = list(w.CLASSES)
    odd = rng.randrange(3) == 0
    target, *others = rng.sample(names, 4)
    if odd:
        answer = rng.choice(w.CLASSES[others[0]])
        rest = rng.sample(w.CLASSES[target], 2)
    else:
        answer = rng.choice(w.CLASSES[target])
        rest = [rng.choice(w.CLASSES[other]) for other in others[:2]]
    listed = [answer, *rest]
    rng.shuffle(listed)
    slots = {"c": ("not " if odd else "") + target, "x": ", ".join(listed)}
    key = f"classify:{slots['c']} {' '.join(sorted(listed))}|{' '.join(listed)}"
    return Item(
        "classify", key, "classify", slots, (f"{answer}.", f"a {answer}."), tuple(f"{word}." for word in rest)
    )
