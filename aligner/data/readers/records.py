"""One row of a file, read field by field; and the error of a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from aligner.data.rows import Origin, Turn
from aligner.errors import DataError, Problem

ROLES = ("system", "user", "assistant")


class RowError(DataError):
    """What is wrong with one row; those behind it can be read."""

    def __init__(self, origin: Origin, what: str, remedy: str) -> None:
        super().__init__(Problem(str(origin), what, remedy))
        self.origin, self.what = origin, what


def fault(origin: Origin | str, what: str, remedy: str) -> DataError:
    """The error of one row, or of what has no rows (a file, a source): "file:line: what", and the remedy."""
    if isinstance(origin, Origin):
        return RowError(origin, what, remedy)
    return DataError(Problem(origin, what, remedy))


@dataclass(frozen=True)
class Record:
    """One row of a file, read field by field; a wrong field is a `DataError` with its place.

    `cells`: the values are the cells of a table, all of them text, named by its header or, without one, by the format.
    """

    origin: Origin
    value: Mapping[str, object]
    cells: Literal["named", "unnamed"] | None = None

    def text(self, key: str, *, default: str | None = None) -> str:
        """The string at `key`; `default` where the key is missing or null."""
        value = self.value.get(key)
        if value is None and default is not None:
            return default
        return self._checked(value, f'"{key}"')

    def number(self, key: str) -> float | None:
        """The finite number at `key`, or None where the key is missing or null (in a table: the cell is empty)."""
        value = self._cell_number(key) if self.cells else self.value.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise fault(
                self.origin, f'"{key}" is {kind_of(value)}', f'give "{key}" a finite number, or leave it out'
            )
        return float(value)

    def flag(self, key: str) -> bool:
        """The true or false at `key`."""
        value = self.value.get(key)
        if self.cells and isinstance(value, str):
            value = {"true": True, "false": False}.get(value.strip().lower(), value)
        if not isinstance(value, bool):
            raise fault(self.origin, f'"{key}" is {kind_of(value)}', f'give "{key}" true or false')
        return value

    def texts(self, key: str) -> list[str]:
        """The list of strings at `key`."""
        value = self.value.get(key)
        if not isinstance(value, list):
            raise fault(self.origin, f'"{key}" is {kind_of(value)}', f'give "{key}" a list of strings')
        return [self._checked(entry, f'"{key}"[{index}]') for index, entry in enumerate(value)]

    def mapping(self, key: str) -> Mapping[str, object]:
        """The object at `key`; empty where the key is missing or null."""
        value = self.value.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise fault(
                self.origin, f'"{key}" is {kind_of(value)}', f'give "{key}" an object, or leave it out'
            )
        return value

    def records(self, key: str) -> list[Record]:
        """The list of objects at `key`, each with this record's place."""
        value = self.value.get(key)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise fault(self.origin, f'"{key}" is {kind_of(value)}', f'give "{key}" a list of objects')
        return [Record(self.origin, entry) for entry in value]

    def turns(self, key: str) -> tuple[Turn, ...]:
        """The messages at `key` ({"role", "content"} each), whitespace around the contents stripped."""
        messages = self.records(key)
        if not messages:
            raise fault(self.origin, f'"{key}" is empty', "give at least one message, or delete the row")
        return tuple(read_turn(message) for message in messages)

    def prompt(self, key: str = "prompt") -> tuple[Turn, ...]:
        """A prompt: a string (one user turn) or messages that end with the user's."""
        if isinstance(self.value.get(key), list):
            turns = self.turns(key)
            if turns[-1].role != "user":
                raise fault(
                    self.origin,
                    f'"{key}" ends with a {turns[-1].role} turn',
                    "end the prompt with a user turn",
                )
            return turns
        content = self.text(key).strip()
        if not content:
            raise fault(self.origin, f'"{key}" is empty', f'put text in "{key}", or delete the row')
        return (Turn("user", content),)

    def _cell_number(self, key: str) -> object:
        value = self.value.get(key)
        if not isinstance(value, str):
            return value
        try:
            return float(value) if value.strip() else None
        except ValueError:
            return value

    def _checked(self, value: object, name: str) -> str:
        if not isinstance(value, str):
            keys = ", ".join(map(str, self.value)) or "none"
            raise fault(
                self.origin,
                f"{name} is {kind_of(value)} (keys: {keys})",
                f"give {name} a string, or another format",
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:
            what = f"{name} holds half of a surrogate pair"
            raise fault(self.origin, what, "write the character whole (UTF-8)") from error
        return value


def read_turn(message: Record) -> Turn:
    """One {"role", "content"} message, whitespace around the content stripped."""
    role = message.text("role")
    if role not in ROLES:
        raise fault(message.origin, f'unknown role "{role}"', f"valid: {', '.join(ROLES)}")
    return Turn(cast(Literal["system", "user", "assistant"], role), message.text("content").strip())


def kind_of(value: object) -> str:
    """What a JSON value is, in words for an error."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "missing" if value is None else names.get(type(value), type(value).__name__)
