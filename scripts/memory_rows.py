"""The memory that rows take on their way to ready tokens: anonymous pages at their peak, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import cycle, islice
from pathlib import Path

from aligner.data.build import build_conversations
from aligner.data.kept import kept_conversations
from aligner.data.token_rows import lengths_of
from aligner.recipe.data import DataSpec
from scripts.speed_rows import MAX_LENGTH, a_tokenizer, some_rows

FEW, MANY = 10_000, 100_000
LEARNT_FROM = 2000  # rows
SAMPLES_A_SECOND = 200
MIB = 1 << 20


def memory_line() -> str:
    """What ten times the rows take more, and how long a second start takes to read them again."""
    few, many = measured(FEW), measured(MANY)
    more = many["peak"] - few["peak"]
    return (
        f"memory of {FEW:,} rows on their way to tokens: {few['peak'] / MIB:.0f} MiB at most, of {MANY:,}"
        f" ({many['tokens']:,} tokens): {many['peak'] / MIB:.0f} MiB, {more / (MANY - FEW):.0f} bytes a row more;"
        f" read again in {many['again']:.2f} s of CPU"
    )


def measured(rows: int) -> dict[str, float]:
    """`peak`: bytes above what the process had before; `tokens`; `again`: CPU seconds of a second start."""
    command = [sys.executable, "-m", "scripts.memory_rows", str(rows)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def anonymous() -> int:
    """Bytes of this process that no file holds."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("there is no RssAnon in /proc/self/status: this measure is for Linux")


def write_rows(path: Path, count: int) -> None:
    """So many rows, each with a number of its own, so that none repeats another."""
    rows = [
        [{"role": turn.role, "content": turn.content} for turn in row.turns] for row in some_rows(LEARNT_FROM)
    ]
    with path.open("w", encoding="utf-8") as file:
        for number, turns in enumerate(islice(cycle(rows), count)):
            first = {**turns[0], "content": f"{number}: {turns[0]['content']}"}
            file.write(json.dumps({"messages": [first, *turns[1:]]}) + "\n")


def measure(rows: int, folder: Path) -> dict[str, float]:
    """As `measured`, here and now; a few rows go first, for what is made only once."""
    tokenizer = a_tokenizer(some_rows(LEARNT_FROM))
    specs = {}
    for count in (LEARNT_FROM, rows):
        write_rows(path := folder / f"{count}.jsonl", count)
        given = {"train": [{"path": str(path)}], "holdout": {"rows": 200}, "clean": {"deduplicate": True}}
        specs[count] = DataSpec.model_validate(given | {"max_length": MAX_LENGTH})
    build_conversations(specs[LEARNT_FROM], tokenizer, seed=0)
    start = anonymous()
    peak, done = [start], threading.Event()

    def watch() -> None:
        while not done.wait(1 / SAMPLES_A_SECOND):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    made = kept_conversations(folder / "rows", specs[rows], tokenizer, seed=0)
    done.set()
    watcher.join()
    began = time.process_time()
    again = kept_conversations(folder / "rows", specs[rows], tokenizer, seed=0)
    seconds = time.process_time() - began
    assert len(again.train) == len(made.train)
    return {"peak": peak[0] - start, "tokens": sum(lengths_of(made.train)), "again": seconds}


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(measure(int(sys.argv[1]), Path(place))))
