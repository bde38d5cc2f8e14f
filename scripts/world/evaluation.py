"""Evaluation rows: new items, new items in new phrasings, and families that no training file has."""

from __future__ import annotations

from scripts.world.bank import HELDOUT_FAMILIES, Bank
from scripts.world.items import Item, Split, seen_phrasing, unseen_phrasing
from scripts.world.phrasings import phrasing_ids
from scripts.world.tuning import Row, prompt_row

ITEMS_EACH = 40
PHRASINGS_EACH = 30
PROMPTS_EACH = 20


def items(bank: Bank, split: Split) -> list[Row]:
    """Unseen items in phrasings that training has."""
    rng = bank.rng(f"{split}/items")
    drawn = [item for family in bank.families for item in bank.distinct(family, split, rng, ITEMS_EACH)]
    return [prompt_row(f"{split}-item-{i}", item, seen_phrasing(item, rng)) for i, item in enumerate(drawn)]


def phrasings(bank: Bank, split: Split) -> list[Row]:
    """Unseen items in phrasings that training does not have."""
    rng = bank.rng(f"{split}/phrasings")
    drawn = [item for family in bank.families for item in bank.distinct(family, split, rng, PHRASINGS_EACH)]
    return [
        prompt_row(f"{split}-phrasing-{i}", item, unseen_phrasing(item, rng)) for i, item in enumerate(drawn)
    ]


def prompts(bank: Bank, split: Split) -> list[Row]:
    """Prompts of all seen families for judging a policy while it is trained by rewards."""
    rng = bank.rng(f"{split}/prompts")
    drawn = [item for family in bank.families for item in bank.distinct(family, split, rng, PROMPTS_EACH)]
    rng.shuffle(drawn)
    return [prompt_row(f"{split}-prompt-{i}", item, seen_phrasing(item, rng)) for i, item in enumerate(drawn)]


def families(bank: Bank) -> list[Row]:
    """Families that exist for evaluation only."""
    rng = bank.rng("heldout/families")
    rows: list[Row] = []
    for family, make in HELDOUT_FAMILIES.items():
        found: dict[str, Item] = {}
        while len(found) < ITEMS_EACH:
            item = make(rng)
            found.setdefault(item.key, item)
        for item in found.values():
            rows.append(
                prompt_row(f"heldout-family-{len(rows)}", item, rng.choice(phrasing_ids(family, "h")))
            )
    return rows
