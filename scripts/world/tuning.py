"""Training rows after pretraining: demonstrations and prompts."""

from __future__ import annotations

import random
from typing import Any

from scripts.world.bank import Bank
from scripts.world.items import Item, seen_phrasing
from scripts.world.noise import demonstration

Row = dict[str, Any]
SFT_ROWS = 1200
RL_PROMPTS = 18_000  # more than the quickstart's PPO asks: 4000 were learnt by heart


def training_rows_items(bank: Bank, family: str, rng: random.Random, count: int) -> list[Item]:
    """Training items, used in turn more than once where the family has too few."""
    items = bank.distinct(family, "train", rng, count)
    return [items[i % len(items)] for i in range(count)]


def sft_rows(bank: Bank, family: str) -> list[Row]:
    """Demonstrations of one family, as people would write them: some of them flawed."""
    rng = bank.rng(f"sft/{family}")
    rows: list[Row] = []
    asked: set[str] = set()
    for item in training_rows_items(bank, family, rng, SFT_ROWS):
        phrasing = seen_phrasing(item, rng)
        prompt = item.prompt(phrasing)
        if prompt in asked:
            continue
        asked.add(prompt)
        answer, flaw = demonstration(item, rng)
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        rows.append(
            {
                "id": f"sft-{family}-{len(rows)}",
                "family": family,
                "phrasing": phrasing,
                "key": item.key,
                "flaw": flaw,
                "messages": messages,
            }
        )
    return rows


def prompt_row(name: str, item: Item, phrasing: str) -> Row:
    """A prompt with what is accepted as its answer."""
    return {
        "id": name,
        "family": item.family,
        "phrasing": phrasing,
        "key": item.key,
        "prompt": item.prompt(phrasing),
        "gold": item.gold,
    }


def rl_prompts(bank: Bank) -> list[Row]:
    """Training prompts of all seen families, in mixed order."""
    rng = bank.rng("prompts")
    each = RL_PROMPTS // len(bank.families) + 1
    items = [item for family in bank.families for item in training_rows_items(bank, family, rng, each)]
    rng.shuffle(items)
    return [prompt_row(f"rl-{i}", item, seen_phrasing(item, rng)) for i, item in enumerate(items)]
