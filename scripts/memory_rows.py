"""The memory that rows take on their way to ready tokens: anonymous pages at their peak, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from aligner.data.build import build_conversations, build_pairs, build_training_prompts
from aligner.data.report import DataReport
from aligner.recipe.data import DataSpec, PairDataSpec
from aligner.recipe.ppo import PromptsSpec
from scripts.speed_rows import MAX_LENGTH, a_tokenizer, some_rows

FEW, MANY = 10_000, 100_000
LEARNT_FROM = 2000  # rows
SAMPLES_A_SECOND = 200
MIB = 1 << 20
WAYS: dict[str, dict[str, object]] = {  # the cleaning of each
    "rows": {"deduplicate": True},
    "cleaned rows": {"deduplicate": True, "repair": True, "mask": ["email", "phone"]},
    "pairs": {"deduplicate": True, "repair": True},
    "prompts": {"deduplicate": True},
}


def memory_lines() -> list[str]:
    """What ten times the rows take more, of each way, and how long a second start takes to read them again."""
    return [_line(way) for way in WAYS]


def _line(way: str) -> str:
    few, many = measured(way, FEW), measured(way, MANY)
    more = many["peak"] - few["peak"]
    return (
        f"memory of {FEW:,} {way} on their way to tokens: {few['peak'] / MIB:.1f} MiB at most, of {MANY:,}"
        f" ({many['tokens']:,} tokens): {many['peak'] / MIB:.1f} MiB, {more / (MANY - FEW):.0f} bytes each more;"
        f" read again in {many['again']:.2f} s of CPU, {many['again peak'] / MIB:.1f} MiB"
    )


def measured(way: str, rows: int) -> dict[str, float]:
    """`peak`: bytes above what the process had before; `tokens`; `again`: CPU seconds of a second start, its peak."""
    command = [sys.executable, "-m", "scripts.memory_rows", way, str(rows)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def anonymous() -> int:
    """Bytes of this process that no file holds."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("there is no RssAnon in /proc/self/status: this measure is for Linux")


def write_rows(path: Path, way: str, count: int) -> None:
    """So many rows, each with a number of its own, so that none repeats another."""
    rows = [
        [{"role": turn.role, "content": turn.content} for turn in row.turns] for row in some_rows(LEARNT_FROM)
    ]
    with path.open("w", encoding="utf-8") as file:
        for number, turns in enumerate(islice(cycle(rows), count)):
            first = {**turns[0], "content": f"{number}: {turns[0]['content']}"}
            answer = turns[-1]["content"]
            prompt = [first, *turns[1:-1]]
            row: dict[str, object] = {"messages": [first, *turns[1:]]}
            if way == "pairs":
                row = {"prompt": prompt, "chosen": answer, "rejected": f"{answer} {number}"}
            file.write(json.dumps({"prompt": prompt} if way == "prompts" else row) + "\n")


def built(
    way: str, path: Path, tokenizer: PreTrainedTokenizerBase, keep: Path | None
) -> tuple[Sequence[object], DataReport]:
    """The rows of a file, ready; `keep`: where they are kept."""
    given = {"train": [{"path": str(path)}], "clean": WAYS[way]}
    if way == "prompts":
        asked = PromptsSpec.model_validate(given | {"max_prompt_tokens": MAX_LENGTH})
        prompts = build_training_prompts(asked, tokenizer, seed=0, keep=keep)
        return prompts.rows, prompts.report
    given |= {"holdout": {"rows": 200}, "max_length": MAX_LENGTH}
    if way == "pairs":
        spec = PairDataSpec.model_validate(given | {"pairs": {"weigh": "prompt"}})
        pairs = build_pairs(spec, tokenizer, seed=0, keep=keep)
        return pairs.train, pairs.report
    chats = build_conversations(DataSpec.model_validate(given), tokenizer, seed=0, keep=keep)
    return chats.train, chats.report


@contextmanager
def watched() -> Iterator[list[int]]:
    """The peak, in bytes, of what this process has more than at first, once it is left."""
    start = anonymous()
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(1 / SAMPLES_A_SECOND):
            peak[0] = max(peak[0], anonymous() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield peak
    done.set()
    watcher.join()


def measure(way: str, rows: int, folder: Path) -> dict[str, float]:
    """As `measured`, here and now; a few rows go first, for what is made only once."""
    tokenizer = a_tokenizer(some_rows(LEARNT_FROM))
    for count in (LEARNT_FROM, rows):
        write_rows(folder / f"{count}.jsonl", way, count)
    built(way, folder / f"{LEARNT_FROM}.jsonl", tokenizer, None)
    with watched() as peak:
        made, report = built(way, folder / f"{rows}.jsonl", tokenizer, folder / "rows")
    began = time.process_time()
    with watched() as again_peak:
        again, _ = built(way, folder / f"{rows}.jsonl", tokenizer, folder / "rows")
    seconds = time.process_time() - began
    assert len(again) == len(made)
    tokens = sum(source.tokens for source in report.train)
    return {"peak": peak[0], "tokens": tokens, "again": seconds, "again peak": again_peak[0]}


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), Path(place))))
