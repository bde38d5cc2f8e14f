"""One task of the world, and how its key decides the split that it belongs to."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from scripts.world.phrasings import phrasing_ids, template

Split = Literal["train", "dev", "heldout"]
# In percent, dev and held out each. There are few facts, so more of their questions are kept back.
SHARES = {"fact": 20}
SHARE = 10
# A list that opens a prompt keeps its small letters, since the answer is to repeat them.
LISTS = ("sort", "copy", "complete", "classify", "kind", "reverse", "last", "count")


@dataclass(frozen=True)
class Item:
    """A question without its wording: the slots, what is right, and plausible wrong answers."""

    family: str
    key: str
    layout: str
    slots: Mapping[str, str] = field(hash=False)
    answers: tuple[str, ...]
    wrongs: tuple[str, ...]
    kind: str = "answerable"

    @property
    def answer(self) -> str:
        """The answer that a clean demonstration gives."""
        return self.answers[0]

    @property
    def gold(self) -> dict[str, object]:
        """The row form that `aligner.evals.gold.Gold` reads."""
        return {"kind": self.kind, "answers": list(self.answers)}

    def prompt(self, phrasing: str) -> str:
        """The item in one phrasing, with a capital letter first."""
        text = template(self.layout, phrasing).format(**self.slots)
        return text if self.layout in LISTS else text[0].upper() + text[1:]


def split_of(key: str) -> Split:
    """The split of a key: what stands before `|` decides, so that variants of one thing stay together."""
    family = key.split(":")[0]
    share = SHARES.get(family, SHARE)
    number = int(hashlib.sha256(key.split("|")[0].encode()).hexdigest()[:8], 16) % 100
    if number < share:
        return "heldout"
    return "dev" if number < 2 * share else "train"


def seen_phrasing(item: Item, rng: random.Random) -> str:
    """A phrasing used in training, drawn evenly."""
    return rng.choice(phrasing_ids(item.layout, "s"))


def unseen_phrasing(item: Item, rng: random.Random) -> str:
    """A phrasing kept for evaluation, drawn evenly."""
    return rng.choice(phrasing_ids(item.layout, "u"))
