"""Ctrl-C that lets the step be finished, and SIGTERM that is no other than Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from aligner.run import launch


@dataclass
class Stop:
    """`asked` turns True at the first Ctrl-C (or SIGTERM)."""

    asked: bool = False


@contextmanager
def gentle_stop() -> Iterator[Stop]:
    """Within, the first Ctrl-C (or SIGTERM) only sets `asked`; a second one, of either kind, acts as usual.

    A launcher of several processes hands a terminal's Ctrl-C on to those that have it already, and kills after half a
    minute what has not ended: there the second one does no more than the first.
    Off the main thread nothing is caught: Python takes no handlers there.
    """
    stop, before = Stop(), dict[int, Any]()
    in_main_thread = threading.current_thread() is threading.main_thread()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.asked = True
        if launch.processes() == 1:
            for number, handler in before.items():
                signal.signal(number, handler)

    try:
        for number in (int(signal.SIGINT), int(signal.SIGTERM)) if in_main_thread else ():
            before[number] = signal.signal(number, ask)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Within, SIGTERM is KeyboardInterrupt, as Ctrl-C is: half-written files are removed, and the run notes its end.

    Several processes of a launcher die of it at once: one that waits for another would not come to hear of it.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or launch.processes() > 1 or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
