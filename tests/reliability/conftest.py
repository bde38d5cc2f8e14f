"""How often the kill tests kill: `scripts/fuzz --kills N`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known where pytest is given this folder, or a file in it."""
    parser.addoption("--kills", type=int, default=None, help="kills a stage")
