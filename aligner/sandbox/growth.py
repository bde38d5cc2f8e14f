"""Filters and methods that make more than they are given: how much, told before they are let."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import wraps
from typing import Any

from jinja2.sandbox import SecurityError

from aligner.sandbox.meter import ITEM_UNITS, VIEWS, size, spend

MAX_WIDTH = 1000  # of columns, indents and batches
MAX_PRECISION = 30  # places that `round` may keep
# A width of four digits, or one that is given with the values, where a value goes; in one look from left to right.
_FAR = re.compile(r"%[-+ #0_^.\d]*(?:\d{4}|\*)|\{[^{}]*\d{4}")
_FAR_ANYWHERE = re.compile(r"\d{4}|\*")  # behind a key in brackets, which may hold anything
_NESTED = re.compile(r"\{[^{}]*\{")

Function = Callable[..., Any]


def narrow(width: object) -> int:
    """The columns that a width stands for, a number or a text of so many; SecurityError for too many."""
    columns = len(width) if isinstance(width, str) else abs(width) if isinstance(width, int) else 0
    if columns > MAX_WIDTH:
        raise SecurityError(f"a width of {columns:,} is not allowed, {MAX_WIDTH:,} are")
    return columns


def check_format(text: str, values: object) -> None:
    """Pay for a text with places for values (of % or of `format`); SecurityError for wide ones."""
    if _FAR.search(text) or _NESTED.search(text) or ("%(" in text and _FAR_ANYWHERE.search(text)):
        raise SecurityError("a format with a width like this is not allowed")
    spend(size(text) + (text.count("%") + text.count("{")) * size(values))


def pay_for_method(owner: str, name: str, args: tuple[Any, ...]) -> None:
    """Pay for a text's method that makes more than its owner, or takes the product of two lengths."""
    first, second = (*args, None, None)[:2]
    if name in ("center", "ljust", "rjust", "zfill"):
        narrow(first)
    elif name == "replace" and isinstance(first, str) and isinstance(second, str):
        spend(len(second) * owner.count(first))
    elif name == "join":
        spend(len(owner) * _count(first))
    elif name in ("rfind", "rindex", "rpartition", "rsplit") and isinstance(first, str):
        spend(len(owner) * len(first))


def _count(items: object) -> int:
    if not isinstance(items, (str, list, tuple, dict, *VIEWS)):
        raise SecurityError(f"a {type(items).__name__} cannot be joined here; make it a list")
    return len(items)


def limited_filter(name: str, plain: Function) -> Function:
    """The filter, which pays for what it will make; arguments and result are paid for elsewhere (see `metered`)."""
    made = _MAKERS.get(name)
    if made is None:
        return plain

    @wraps(plain)  # with the mark by which Jinja knows filters that take its context
    def call(*args: Any, **kwargs: Any) -> Any:
        values = args[1:] if hasattr(plain, "jinja_pass_arg") else args
        made(*values, **kwargs)
        return plain(*args, **kwargs)

    return call


def _pay_for_columns(value: object, width: object = 0, *more: object, **named: object) -> None:
    for number in (width, *more, *named.values()):
        spend(ITEM_UNITS * narrow(number))


def _pay_for_indent(text: object, width: object = 4, *more: object, **named: object) -> None:
    spend(narrow(named.get("width", width)) * (str(text).count("\n") + 1))


def _pay_for_join(items: Any, d: object = "", *more: object, **named: object) -> None:
    spend(size(str(named.get("d", d))) * (len(items) if hasattr(items, "__len__") else 0))


def _pay_for_replacing(text: object, old: object, new: object, *more: object) -> None:
    spend(len(str(new)) * str(text).count(str(old)))


def _pay_for_rounding(number: object, precision: object = 0, *more: object, **named: object) -> None:
    if isinstance(precision, int) and abs(precision) > MAX_PRECISION:
        raise SecurityError(f"round to {precision} places is not allowed, {MAX_PRECISION} are")


def _pay_for_sum(items: object, attribute: object = None, start: object = 0) -> None:
    if not isinstance(start, int | float):
        raise SecurityError("numbers can be summed here, and nothing else")


_MAKERS: dict[str, Callable[..., None]] = {
    "batch": _pay_for_columns,
    "center": _pay_for_columns,
    "format": lambda text, *args, **kwargs: check_format(str(text), [*args, *kwargs.values()]),
    "indent": _pay_for_indent,
    "join": _pay_for_join,
    "replace": _pay_for_replacing,
    "round": _pay_for_rounding,
    "slice": _pay_for_columns,
    "sum": _pay_for_sum,
}


def to_json(
    x: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson` as transformers has it, each piece paid for as it is written."""
    for given in (indent, *(separators or ())):
        narrow(given)
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    if indent is None and separators is None:
        return encoder.encode(x)
    pieces: list[str] = []
    for piece in encoder.iterencode(x):
        spend(len(piece))
        pieces.append(piece)
    return "".join(pieces)
