"""How far a stage is: a moving bar in a terminal, a plain line every few seconds elsewhere (logs, pipes, CI)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from aligner.run import launch
from aligner.run.numbers import duration, number

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_SECONDS = 10.0


class Bar(Protocol):
    """What a stage sees of its progress."""

    def advance(self, amount: int = 1, **values: float) -> None:
        """`amount` more units are done; `values` (loss=..., reward=...) are shown beside the bar."""


def say(text: str) -> None:
    """One line to the user, on stderr as the progress is: stdout belongs to results.

    Of several processes the first one speaks.
    """
    if launch.rank() == 0:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(title: str, total: int, *, done: int = 0) -> Iterator[Bar]:
    """A bar of `total` units, `done` of them in an earlier session: they say nothing about the time that is left.

    One at a time: two would write over each other.
    """
    if sys.stderr.isatty() and launch.rank() == 0:
        with _moving_bar(title, total, done) as bar:
            yield bar
    else:
        plain = _PlainBar(title, total, done)
        yield plain
        plain.close()


@contextmanager
def _moving_bar(title: str, total: int, done: int) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as display:
        yield _MovingBar(display, title, total, done)


class _MovingBar:
    def __init__(self, display: Progress, title: str, total: int, done: int) -> None:
        self._display = display
        self._task = display.add_task(title, total=total, completed=done, values="")

    def advance(self, amount: int = 1, **values: float) -> None:
        if values:
            self._display.update(self._task, advance=amount, values=_spelt(values))
        else:
            self._display.update(self._task, advance=amount)


class _PlainBar:
    """A line when `PLAIN_SECONDS` have passed since the last one, and one at the end."""

    def __init__(self, title: str, total: int, done: int) -> None:
        self._title, self._total, self._done, self._before = title, total, done, done
        self._values: dict[str, float] = {}
        self._start = self._said = time.monotonic()

    def advance(self, amount: int = 1, **values: float) -> None:
        self._done += amount
        self._values |= values
        if time.monotonic() - self._said >= PLAIN_SECONDS and self._done < self._total:
            self._say()

    def close(self) -> None:
        self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        spent = self._said - self._start
        parts = [f"{self._done}/{self._total}", duration(spent)]
        if self._before < self._done < self._total:
            left = spent / (self._done - self._before) * (self._total - self._done)
            parts.append(f"about {duration(left)} left")
        if self._values:
            parts.append(_spelt(self._values))
        say(f"{self._title}: {', '.join(parts)}")


def _spelt(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {number(value)}" for name, value in values.items())
