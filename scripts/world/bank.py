"""Draws of items by family and split, the only place where a file gets its items from."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from scripts.world import families_lists as lists
from scripts.world import families_social as social
from scripts.world import families_text as text
from scripts.world.facts import Fact, build_facts
from scripts.world.items import Item, Split, split_of

Maker = Callable[[random.Random], Item]
HELDOUT_FAMILIES: dict[str, Maker] = {
    "reverse": lists.reverse,
    "count": lists.count,
    "last": lists.last,
    "between": lists.between,
}


class Bank:
    """The facts of one seed, and fresh items of any family in any split."""

    def __init__(self, seed: int) -> None:
        """Draw the facts of the seed's world."""
        self.seed = seed
        self.facts: list[Fact] = build_facts(self.rng("facts"))
        self._makers: dict[str, Maker] = {
            "fact": self._fact,
            "reading": text.reading,
            "entail": text.entail,
            "sentiment": text.sentiment,
            "add": lists.add,
            "steps": lists.steps,
            "sort": lists.sort,
            "copy": lists.copy,
            "edit": lists.edit,
            "extract": text.extract,
            "classify": text.classify,
            "complete": lists.complete,
            "compare": lists.compare,
            "unknown": social.unknown,
            "unsafe": social.unsafe,
        }
        self.families: Sequence[str] = tuple(self._makers)

    def rng(self, name: str) -> random.Random:
        """A generator of its own for each file, so that changing one file leaves the others as they are."""
        return random.Random(f"{self.seed}/{name}")

    def _fact(self, rng: random.Random) -> Item:
        return social.fact_item(rng.choice(self.facts), rng)

    def draw(self, family: str, split: Split, rng: random.Random) -> Item:
        """One item of the family whose key belongs to the split."""
        while True:
            item = self._makers[family](rng)
            if split_of(item.key) == split:
                return item

    def distinct(self, family: str, split: Split, rng: random.Random, count: int) -> list[Item]:
        """Up to `count` items with keys of their own; fewer where the family has fewer."""
        found: dict[str, Item] = {}
        for _ in range(40 * count):
            item = self.draw(family, split, rng)
            found.setdefault(item.key, item)
            if len(found) == count:
                break
        return list(found.values())
