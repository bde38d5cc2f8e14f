"""What a launcher (torchrun, `accelerate launch`) says of this process: known before torch is."""

from __future__ import annotations

import os


def rank() -> int:
    """The number of this process; the first, 0, is the one that writes and speaks."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """How many processes were started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))
