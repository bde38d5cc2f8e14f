"""Files of JSON objects as `Record`s: `.jsonl`, `.json` (a list, one object, or lines) and their `.gz`."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from aligner.data.rows import Origin, Turn
from aligner.errors import DataError, Problem, at

ROLES = ("system", "user", "assistant")


def fault(origin: Origin | str, what: str, remedy: str) -> DataError:
    """The error of one row: "file:line: what", and the remedy."""
    return DataError(Problem(str(origin), what, remedy))


@dataclass(frozen=True)
class Record:
    """One JSON object of a file, read field by field; a wrong field is a `DataError` with its place."""

    origin: Origin
    value: Mapping[str, object]

    def text(self, key: str, *, default: str | None = None) -> str:
        """The string at `key`; `default` where the key is missing or null."""
        value = self.value.get(key)
        if value is None and default is not None:
            return default
        return self._checked(value, f'"{key}"')

    def number(self, key: str) -> float | None:
        """The finite number at `key`, or None where the key is missing or null."""
        value = self.value.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise fault(
                self.origin, f'"{key}" is {_kind(value)}', f'give "{key}" a finite number, or leave it out'
            )
        return float(value)

    def flag(self, key: str) -> bool:
        """The true or false at `key`."""
        value = self.value.get(key)
        if not isinstance(value, bool):
            raise fault(self.origin, f'"{key}" is {_kind(value)}', f'give "{key}" true or false')
        return value

    def texts(self, key: str) -> list[str]:
        """The list of strings at `key`."""
        value = self.value.get(key)
        if not isinstance(value, list):
            raise fault(self.origin, f'"{key}" is {_kind(value)}', f'give "{key}" a list of strings')
        return [self._checked(entry, f'"{key}"[{index}]') for index, entry in enumerate(value)]

    def mapping(self, key: str) -> Mapping[str, object]:
        """The object at `key`; empty where the key is missing or null."""
        value = self.value.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise fault(self.origin, f'"{key}" is {_kind(value)}', f'give "{key}" an object, or leave it out')
        return value

    def records(self, key: str) -> list[Record]:
        """The list of objects at `key`, each with this record's place."""
        value = self.value.get(key)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise fault(self.origin, f'"{key}" is {_kind(value)}', f'give "{key}" a list of objects')
        return [Record(self.origin, entry) for entry in value]

    def turns(self, key: str) -> tuple[Turn, ...]:
        """The messages at `key` ({"role", "content"} each), whitespace around the contents stripped."""
        messages = self.records(key)
        if not messages:
            raise fault(self.origin, f'"{key}" is empty', "give at least one message, or delete the row")
        return tuple(_turn(message) for message in messages)

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

    def _checked(self, value: object, name: str) -> str:
        if not isinstance(value, str):
            keys = ", ".join(map(str, self.value)) or "none"
            raise fault(
                self.origin,
                f"{name} is {_kind(value)} (keys: {keys})",
                f"give {name} a string, or another format",
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:
            what = f"{name} holds half of a surrogate pair"
            raise fault(self.origin, what, "write the character whole (UTF-8)") from error
        return value


def _turn(message: Record) -> Turn:
    role = message.text("role")
    if role not in ROLES:
        raise fault(message.origin, f'unknown role "{role}"', f"valid: {', '.join(ROLES)}")
    return Turn(cast(Literal["system", "user", "assistant"], role), message.text("content").strip())


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "missing" if value is None else names.get(type(value), type(value).__name__)


def read_bytes(path: Path) -> bytes:
    """The file's bytes, unzipped where its name ends in `.gz`."""
    try:
        with path.open("rb") as file:
            return gzip.GzipFile(fileobj=file).read() if path.suffix == ".gz" else file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise fault(
            at(path), f"not a whole gzip file ({error})", "fetch the file again, or rename it if it is plain"
        ) from error
    except OSError as error:
        raise fault(
            at(path), f"cannot be read ({error.strerror})", "check the path and its permissions"
        ) from error


def read_records(path: Path) -> Iterator[Record]:
    """The JSON objects of a file in order; `Origin.line` is the line, or the index from 1 in a JSON list."""
    data = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    lines = ".jsonl" in path.suffixes
    if not lines and data.lstrip()[:1] == b"[":
        yield from _list_records(path, data)
    elif not lines and (whole := _one_object(data)) is not None:
        yield Record(Origin(str(path), 1), whole)
    else:
        for number, line in enumerate(io.BytesIO(data), start=1):
            if line.strip():
                yield _record(Origin(str(path), number), _parse(line, at(path, number)))


def _list_records(path: Path, data: bytes) -> Iterator[Record]:
    values = _parse(data, at(path))
    if not isinstance(values, list):
        raise fault(at(path), "not a JSON list", "write one list of objects, or one object a line")
    for index, value in enumerate(values, start=1):
        yield _record(Origin(str(path), index), value)


def _record(origin: Origin, value: object) -> Record:
    if not isinstance(value, dict):
        raise fault(origin, f"the row is {_kind(value)}", "every row must be a JSON object")
    return Record(origin, value)


def _one_object(data: bytes) -> dict[str, object] | None:
    """The file as one JSON object, or None where it is something else (lines of objects, or damaged)."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _parse(data: bytes, where: str) -> object:
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise fault(
            where, f"not UTF-8 (byte {error.start + 1} of the row)", "save the file as UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise fault(where, f"not JSON ({error})", "mend or delete this row") from error
