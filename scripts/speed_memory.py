"""What a process holds, from Linux' own book-keeping. Nothing but the standard library: TRL's side reads it too."""

from __future__ import annotations

from pathlib import Path


def mib_now() -> float:
    """Resident now."""
    return _field("VmRSS")


def mib_peak() -> float:
    """The most that was ever resident."""
    return _field("VmHWM")


def _field(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {name}: memory is measured on Linux")
