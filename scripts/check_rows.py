"""How long `aligner check` takes over many rows, and how much memory: cold, and once more when the rows are kept."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aligner.models.small import build_small
from aligner.recipe.model import ArchitectureSpec
from scripts.speed_rows import a_tokenizer, some_rows

ROWS, LEARNT_FROM = 1_000_000, 2000
MIB = 1024  # in what the system counts peaks in
RECIPE = """
stage: sft
model: {base: base}
data:
  train: [{path: rows.jsonl}]
  max_length: 512
train: {epochs: 1, rows_per_step: 32, learning_rate: 1.0e-3}
output: run
"""


def main() -> None:
    """Each number on a line; the number of rows may be given."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_inputs(folder, count)
        size = (folder / "rows.jsonl").stat().st_size
        print(f"{count:,} rows, {size / 1e6:.0f} MB")
        for name in ("first", "second"):
            seconds, cpu, peak = checked(folder)
            print(f"{name} check: {seconds:.1f} s, {cpu:.1f} s of CPU, {peak / MIB:.0f} MiB resident at most")


def write_inputs(folder: Path, count: int) -> None:
    """Short Alpaca rows, no two alike, a small base and the recipe."""
    rows = some_rows(LEARNT_FROM)
    tokenizer = a_tokenizer(rows)
    shape = ArchitectureSpec(hidden_size=64, layers=2, heads=2, context_length=512)
    build_small(shape, tokenizer).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    chooser = random.Random(0)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            asked, said = chooser.choice(rows).turns[-2:]
            row = {"instruction": f"{number}: {asked.content}", "input": "", "output": said.content}
            file.write(json.dumps(row) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")


def checked(folder: Path) -> tuple[float, float, int]:
    """Seconds, seconds of CPU and KiB resident at most of one `aligner check`."""
    command = [sys.executable, "-m", "aligner", "check", "recipe.yaml"]
    home = {"ALIGNER_HOME": str(folder / "home"), "PYTHONPATH": os.getcwd(), "HF_HUB_OFFLINE": "1"}
    began = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, env=os.environ | home, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"aligner check ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss


if __name__ == "__main__":
    main()
