"""How much memory there is for a run, where its weights will lie: on the first GPU, or in main memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

CGROUP = Path("/sys/fs/cgroup")


class Room(NamedTuple):
    """Bytes that are free now, and all there are; `of`: whose they are."""

    free: int
    whole: int
    of: str


def room_to_train() -> Room:
    """Memory of the GPU where there is one and torch is loaded, else of this process's machine."""
    torch: Any = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        free, whole = torch.cuda.mem_get_info()
        unused = (
            torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        )  # torch keeps it for this process
        return Room(free + unused, whole, "the GPU")
    return main_memory()


def main_memory() -> Room:
    """Memory of the machine, or of the container that this process is in, where that has less."""
    import psutil

    memory = psutil.virtual_memory()
    limit, taken = _of_container("memory.max"), _of_container("memory.current")
    cached = _cached_files()  # counted as taken, and given up as soon as somebody asks
    if limit is None or limit >= memory.total:
        return Room(memory.available, memory.total, "the machine")
    left = limit - max((taken or 0) - cached, 0)
    return Room(max(min(memory.available, left), 0), limit, "this container")


def _cached_files() -> int:
    """Bytes of files that the container keeps in memory without need."""
    path = CGROUP / "memory.stat"
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


def _of_container(name: str) -> int | None:
    """A number of bytes that the control group tells; None where it sets none."""
    path = CGROUP / name
    text = path.read_text(encoding="ascii").strip() if path.exists() else ""
    return int(text) if text.isdecimal() else None
