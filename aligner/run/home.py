"""Where aligner keeps what it makes once and needs again: trained bases, tokenised rows. All of it may be deleted."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """The folder of what is kept: `ALIGNER_HOME`, or ~/.cache/aligner."""
    return Path(os.environ.get("ALIGNER_HOME") or Path.home() / ".cache" / "aligner")


def rows_home() -> Path | None:
    """The folder of tokenised rows; None where `ALIGNER_KEEP_ROWS` is 0."""
    return None if os.environ.get("ALIGNER_KEEP_ROWS") == "0" else cache_home() / "rows"
