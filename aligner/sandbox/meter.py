"""What a template may spend, and the means of making it pay: about one unit for a character or item that it touches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any

from jinja2.utils import Namespace

BUDGET_UNITS = (
    10_000_000  # of one rendering: a document of some million characters, or some tenths of a second
)
STEP_UNITS = 100  # a turn of a loop
ITEM_UNITS = 20  # an item of a list
NUMBER_BITS = 256  # the longest number: arithmetic on longer ones takes time that nobody counts
RANGE_END = 10**9
VIEWS = (type({}.keys()), type({}.values()), type({}.items()))
_HOLDERS = (list, tuple, dict, *VIEWS)


class OverspentError(Exception):
    """A template asks for more than one rendering may take."""


class Meter:
    """What one rendering may still spend of its `budget`."""

    def __init__(self, budget: int = BUDGET_UNITS) -> None:
        self.budget = self.left = budget

    def spend(self, units: int) -> None:
        """Take units away; `OverspentError` where there are not enough."""
        self.left -= units
        if self.left < 0:
            raise OverspentError(f"takes more than {self.budget:,} units of work (about a character each)")


METER: ContextVar[Meter] = ContextVar("meter")


def spend(units: int) -> None:
    """Take units from the rendering that is under way."""
    METER.get().spend(units)


def size(value: object) -> int:
    """Units that a value takes: characters of texts, items of lists and views with all they hold, one for any other.

    A namespace is what it holds.

    Every item is paid for as it is counted: a list may hold one other list a thousand times.
    """
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Namespace):
        value = value._Namespace__attrs  # type: ignore[attr-defined]  # what the class itself reads
    if isinstance(value, _HOLDERS):
        items = value.values() if isinstance(value, dict) else value
        spend(ITEM_UNITS * len(items))
        return ITEM_UNITS * len(items) + sum(map(size, items))
    if isinstance(value, int) and value.bit_length() > NUMBER_BITS:
        raise OverspentError(f"makes a number of more than {NUMBER_BITS} bits")
    return ITEM_UNITS * len(value) if isinstance(value, range) else 1


def paid(value: Any) -> Any:
    """The value, once it is paid for."""
    METER.get().spend(
        len(value) if type(value) is str else size(value)
    )  # called for all that a template touches
    return value


def metered(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test whose arguments and result are paid for."""

    @wraps(function)  # with the mark by which Jinja knows filters that take its context
    def call(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            paid(value)
        result = function(*args, **kwargs)
        return paid(list(steps(result)) if isinstance(result, Iterator) else result)

    return call


def steps(items: Iterable[Any]) -> Iterator[Any]:
    """The items, each paid for when its turn comes."""
    for item in items:
        spend(STEP_UNITS)
        yield item


def paid_range(*bounds: int) -> range:
    """Python's range, paid for when it is made."""
    if any(not -RANGE_END < bound < RANGE_END for bound in bounds):
        raise OverspentError(f"makes a range beyond {RANGE_END:,}")
    result = range(*bounds)
    paid(result)
    return result
