"""Near duplicates beside datatrove's own MinHash (its four blocks in turn, in an environment of their own).

Documents are random words in the frequencies of a language (Zipf), one in five of them an earlier one with some words
changed, unless BENCH_DOCUMENTS names files.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path

from aligner.data.cleaning.near import NearDuplicates
from aligner.data.readers import read_source
from aligner.data.rows import Document
from aligner.recipe.data import SourceSpec

COUNT, VOCABULARY = 20_000, 30_000
CHANGED = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1)  # share of the words of a copy
SURE, UNLIKE = 0.9, 0.5  # similarities that must be found, and that should not

Task = Callable[[], float]  # does the work once and says how many seconds it took


@dataclass
class Found:
    """Numbers of the documents that were dropped the last time, by who dropped them."""

    dropped: dict[str, set[int]] = field(default_factory=dict)


found = Found()


@cache
def texts() -> list[str]:
    """The documents."""
    if files := os.environ.get("BENCH_DOCUMENTS"):
        rows = read_source(SourceSpec(path=files), "document").rows
        return [row.text for row in rows if isinstance(row, Document)][:COUNT]
    chooser = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(chooser.choices(letters, k=chooser.randint(2, 9))) for _ in range(VOCABULARY)]
    weights = list(accumulate(1 / rank for rank in range(1, VOCABULARY + 1)))
    made: list[list[str]] = []
    for number in range(COUNT):
        if number % 5 == 4:
            share = chooser.choice(CHANGED)
            copied = chooser.choice(made)
            made.append([chooser.choice(words) if chooser.random() < share else word for word in copied])
        else:
            length = min(2000, max(20, int(chooser.lognormvariate(4.6, 0.8))))
            made.append(chooser.choices(words, cum_weights=weights, k=length))
    return [" ".join(text) + "." for text in made]


def ours() -> float:
    """Every document judged, one after the other."""
    near, given = NearDuplicates(), texts()
    began = time.perf_counter()
    seen = [near.seen(text) for text in given]
    seconds = time.perf_counter() - began
    found.dropped["aligner"] = {number for number, is_near in enumerate(seen) if is_near}
    return seconds


def datatrove(words: str) -> Task:
    """datatrove's blocks; `words`: "spacy", as it parts English ones, or "spaces" for MinHash alone."""

    def once() -> float:
        with tempfile.TemporaryDirectory() as folder:
            given = Path(folder, "texts.json")
            given.write_text(json.dumps(texts()))
            python = Path(os.environ["ALIGNER_DATATROVE"], "bin", "python")
            script = Path(__file__).with_name("datatrove_minhash.py")
            done = subprocess.run([python, script, given, words], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        answer = json.loads(done.stdout.splitlines()[-1])
        found.dropped["datatrove"] = set(answer["dropped"])
        return float(answer["seconds"])

    return once


def against_datatrove(words: str) -> tuple[str, Task, Task]:
    """Near duplicates: ours, and datatrove's."""
    if "ALIGNER_DATATROVE" not in os.environ:
        sys.exit(
            "name an environment with datatrove in ALIGNER_DATATROVE, or use scripts/bench, which makes one"
        )
    named = {"spacy": "datatrove's MinHash", "spaces": "the same, words parted at spaces"}[words]
    return named, ours, datatrove(words)


def quality() -> str:
    """How many of the copies that are surely near were dropped, and how many of the dropped are like none before."""
    if "BENCH_DOCUMENTS" in os.environ:
        agreed = len(found.dropped["aligner"] & found.dropped["datatrove"])
        counts = ", ".join(f"{name} dropped {len(numbers):,}" for name, numbers in found.dropped.items())
        return f"{counts}, {agreed:,} of them both"
    similar = _similarities(texts())
    sure = {number for number, similarity in similar.items() if similarity >= SURE}
    told = []
    for name, dropped in found.dropped.items():
        wrong = sum(similar.get(number, 0.0) < UNLIKE for number in dropped)
        told.append(
            f"{name} dropped {len(dropped):,}, {len(sure & dropped) / len(sure):.2%} of the {len(sure):,} with an"
            f" earlier one of Jaccard >= {SURE}, and {wrong} with none of >= {UNLIKE}"
        )
    return "\n".join(told)


def _similarities(given: Sequence[str]) -> dict[int, float]:
    """The greatest exact Jaccard similarity (runs of 5 words) of each text to an earlier one that shares a run."""
    runs = [_runs(text) for text in given]
    holders: dict[tuple[str, ...], list[int]] = {}
    greatest: dict[int, float] = {}
    for number, own in enumerate(runs):
        shared: dict[int, int] = {}
        for run in own:
            for other in holders.get(run, ()):
                shared[other] = shared.get(other, 0) + 1
            holders.setdefault(run, []).append(number)
        if shared:
            greatest[number] = max(
                count / (len(own) + len(runs[other]) - count) for other, count in shared.items()
            )
    return greatest


def _runs(text: str) -> set[tuple[str, ...]]:
    words = text.rstrip(".").split()
    return {tuple(words[start : start + 5]) for start in range(max(1, len(words) - 4))}
