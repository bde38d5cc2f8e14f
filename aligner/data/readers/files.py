"""Which files a source means."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from glob import glob, has_magic
from pathlib import Path

from aligner.errors import DataError, Problem

TEXT_SUFFIXES = (".txt", ".text", ".md")
SUFFIXES = (*TEXT_SUFFIXES, ".json", ".jsonl")
_NOT_DATA = ("license", "readme", "copying", "notice")


def find_files(paths: str | list[str]) -> list[Path]:
    """The files of a source, in a fixed order, each once; a path that matches nothing is a `DataError`."""
    found: list[Path] = []
    for path in [paths] if isinstance(paths, str) else paths:
        files = list(_matches(path))
        if not files:
            kinds = ", ".join(SUFFIXES)
            raise DataError(
                Problem(path, "no such data file", f"give a file, a folder with {kinds} (.gz), or a glob")
            )
        found += files
    return list(dict.fromkeys(found))


def joined(paths: str | list[str]) -> str:
    """A source's paths as reports name them."""
    return paths if isinstance(paths, str) else ", ".join(paths)


def _matches(path: str) -> Iterator[Path]:
    if has_magic(path) and not Path(path).exists():
        yield from (file for name in sorted(glob(path, recursive=True)) if (file := Path(name)).is_file())
    elif Path(path).is_dir():
        yield from sorted(file for file in Path(path).rglob("*") if file.is_file() and _is_data(file))
    elif Path(path).is_file():
        yield Path(path)


def plain_suffix(path: Path) -> str:
    """The suffix that says how the file is written, `.gz` aside, in lower case."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _is_data(path: Path) -> bool:
    name = path.name.lower()
    return plain_suffix(path) in SUFFIXES and not name.startswith((".", *_NOT_DATA))


def files_sha256(files: list[Path]) -> str:
    """One hash for the bytes of all files, in order."""
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
