"""Ctrl-C that lets the step be finished."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass
class Stop:
    """`asked` turns True at the first Ctrl-C (or SIGTERM)."""

    asked: bool = False


@contextmanager
def gentle_stop() -> Iterator[Stop]:
    """Within, the first Ctrl-C (or SIGTERM) only sets `asked`; a second one acts as usual. For the main thread."""
    stop, before = Stop(), dict[int, Any]()

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.asked = True
        signal.signal(number, before[number])

    try:
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            before[number] = signal.signal(number, ask)
        yield stop
    finally:
        for number in before:
            signal.signal(number, before[number])
