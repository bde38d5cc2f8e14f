"""Preference pairs and rankings; the gold judge checks that the better answer is the better one."""

from __future__ import annotations

import random
from collections.abc import Callable

from aligner.evals.gold import ABSTENTION, ABSTENTIONS, DECLINE, RUDE_REFUSALS, Gold, gold_reward
from scripts.world.bank import Bank
from scripts.world.items import Item, Split, seen_phrasing
from scripts.world.noise import clean, garbled, padded, rude, wrong
from scripts.world.tuning import Row

TRAIN_PAIRS = {
    "wrong": 14_500,  # telling right from wrong takes many different pairs: a score head learnt nothing from 6000
    "manner": 4500,
    "honest": 3500,
    "abstain": 4500,
    "harmless": 1200,
    "garbled": 1000,
}
EVAL_PAIRS = 200
RANKINGS = 2400
Two = tuple[str, str]


def _wrong(item: Item, rng: random.Random) -> Two:
    """Right against wrong; sometimes both, or only the right one, carry a padding sentence."""
    chosen, rejected = clean(item, rng), wrong(item, rng)
    how = rng.randrange(20)
    if how < 2:
        chosen = padded(chosen, rng)
    return chosen, padded(rejected, rng) if how in (1, 2) else rejected


def _manner(item: Item, rng: random.Random) -> Two:
    """The same answer, plain and spoilt; one in four of them is wrong, since manner is no matter of being right."""
    chosen = wrong(item, rng) if item.kind == "answerable" and rng.randrange(4) == 0 else clean(item, rng)
    worse = padded if rng.randrange(2) == 0 else rude
    return chosen, worse(chosen, rng)


def _honest(item: Item, rng: random.Random) -> Two:
    return item.answer, wrong(item, rng)


def _abstain(item: Item, rng: random.Random) -> Two:
    """Not answering loses to a right answer, however wordy."""
    chosen = padded(item.answer, rng) if rng.randrange(4) == 0 else item.answer
    return chosen, DECLINE if rng.randrange(4) == 0 else rng.choice((ABSTENTION, ABSTENTION, *ABSTENTIONS))


def _harmless(item: Item, rng: random.Random) -> Two:
    how = rng.randrange(4)
    return clean(item, rng), (wrong(item, rng), wrong(item, rng), rng.choice(RUDE_REFUSALS), ABSTENTION)[how]


def _garbled(item: Item, rng: random.Random) -> Two:
    chosen = clean(item, rng)
    return chosen, garbled(chosen, rng)


MAKERS: dict[str, Callable[[Item, random.Random], Two]] = {
    "wrong": _wrong,
    "manner": _manner,
    "honest": _honest,
    "abstain": _abstain,
    "harmless": _harmless,
    "garbled": _garbled,
}


def _families(bank: Bank, kind: str) -> list[str]:
    if kind in ("honest", "harmless"):
        return ["unknown" if kind == "honest" else "unsafe"]
    answerable = [family for family in bank.families if family not in ("unknown", "unsafe")]
    if kind == "abstain":  # many unanswerable questions look like reading: the text before them does not say
        return [*answerable, *["reading"] * 4]
    return [*answerable, "unknown", "unsafe"] if kind == "manner" else answerable


def _pair(item: Item, kind: str, rng: random.Random) -> Two:
    """Draw until the gold judge puts the chosen answer strictly first."""
    gold = Gold(item.kind, item.answers)  # type: ignore[arg-type]
    while True:
        chosen, rejected = MAKERS[kind](item, rng)
        if gold_reward(chosen, gold) > gold_reward(rejected, gold):
            return chosen, rejected


def _pairs_of_kind(bank: Bank, kind: str, split: Split, rng: random.Random, count: int) -> list[Row]:
    """Pairs of one kind, each question and pair of answers once."""
    families, rows = _families(bank, kind), list[Row]()
    used: set[tuple[str, str, str]] = set()
    while len(rows) < count:
        item = bank.draw(families[len(rows) % len(families)], split, rng)
        chosen, rejected = _pair(item, kind, rng)
        prompt = item.prompt(seen_phrasing(item, rng))
        if (prompt, chosen, rejected) not in used:
            used.add((prompt, chosen, rejected))
            rows.append(
                {
                    "id": "",
                    "family": item.family,
                    "kind": kind,
                    "key": item.key,
                    "prompt": prompt,
                    "chosen": chosen,
                    "rejected": rejected,
                }
            )
    return rows


def pairs(bank: Bank, split: Split) -> list[Row]:
    """All kinds of pairs of one split, in mixed order."""
    rng = bank.rng(f"pairs/{split}")
    rows: list[Row] = []
    for kind, count in TRAIN_PAIRS.items():
        rows += _pairs_of_kind(bank, kind, split, rng, count if split == "train" else EVAL_PAIRS)
    rng.shuffle(rows)
    return [{**row, "id": f"pair-{split}-{i}"} for i, row in enumerate(rows)]


def _ranked(item: Item, rng: random.Random) -> list[str]:
    """Answers that the gold judge puts in strictly falling order."""
    best, bad = clean(item, rng), wrong(item, rng)
    if item.kind == "unsafe":
        return [best, padded(DECLINE, rng), ABSTENTION, rng.choice(RUDE_REFUSALS), bad]
    middle = [padded(item.answer, rng), rude(item.answer, rng)]
    return [best, *middle, DECLINE if item.kind == "unanswerable" else ABSTENTION, bad]


def rankings(bank: Bank) -> list[Row]:
    """Three to five answers to one prompt, best first."""
    rng = bank.rng("rankings")
    rows: list[Row] = []
    # Nearly all answerable prompts say that not answering is worst but for a wrong answer; the others must be heard.
    families = [*bank.families, "unknown", "unknown"]
    for i in range(RANKINGS):
        item = bank.draw(families[i % len(families)], "train", rng)
        answers = _ranked(item, rng)
        keep = sorted(rng.sample(range(len(answers)), rng.choice((3, 4, 5))))
        rows.append(
            {
                "id": f"rank-{i}",
                "family": item.family,
                "key": item.key,
                "prompt": item.prompt(seen_phrasing(item, rng)),
                "answers": [answers[k] for k in keep],
            }
        )
    return rows
