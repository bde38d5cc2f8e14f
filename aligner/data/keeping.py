"""What is made of files once and needed again: when it is worth a file of its own, under which name, and how long."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import aligner
from aligner.data.readers import source_files, source_identity
from aligner.data.readers.files import files_sha256
from aligner.recipe.data import SourceSpec

FEWEST_ROWS = 5000  # that are kept: few are made in no time
MOST_FILES = 20  # of rows, 4 bytes a token; a folder of all of them may be deleted at any time
MOST_MARKS = 1000  # of what was read: empty files
CODE_THAT_MATTERS = ("data", "recipe", "sandbox")
LIBRARIES_THAT_MATTER = (
    "tokenizers", "transformers", "datasets", "jinja2", "numpy", "pyarrow", "trafilatura", "warcio", "ftfy",
    "py3langid", "krippendorff", "lxml", "justext", "charset-normalizer",
)  # fmt: skip

# Rows, whole or begun by a process that died (`.safetensors` is what they were before), and marks of what was read.
_OUR_NAME = re.compile(r"[0-9a-f]{16}(?:-\d+)*\.(rows|safetensors|read)|\.tmp-.*\.(?:rows|safetensors).*")


def worth_keeping(rows: int) -> bool:
    """Whether so many rows are kept."""
    return rows >= FEWEST_ROWS


def fingerprint_of(
    known: Mapping[str, object], sources: Sequence[SourceSpec], more: Sequence[Sequence[Path]] = ()
) -> str:
    """16 hex digits that change with what is `known`, with the rows of the sources and with what reads them.

    more: groups of other files whose bytes count. Raises `DataError` where a file is missing.
    """
    files = [*map(source_files, sources), *more]
    everything = {
        **known,
        "files": [[str(file) for file in group] for group in files],
        "bytes": [files_sha256(group) for group in files],
        "hub": [source_identity(source) for source in sources],
        "code": [_code(), sys.version],
        "libraries": [_version(name) for name in LIBRARIES_THAT_MATTER],
    }
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]


def clear(folder: Path) -> None:
    """Delete all of our files but those that were used last, and with them what killed processes left."""
    ours: dict[str, list[Path]] = {}
    with suppress(OSError):  # another process may clear at the same moment
        for path in folder.iterdir():
            if (name := _OUR_NAME.fullmatch(path.name)) and path.is_file():
                ours.setdefault("read" if name[1] == "read" else "rows", []).append(path)
        for sort, paths in ours.items():
            most = MOST_MARKS if sort == "read" else MOST_FILES
            for path in sorted(paths, key=lambda path: path.stat().st_mtime)[:-most]:
                path.unlink(missing_ok=True)


@cache
def _code() -> str:
    root = Path(aligner.__file__).parent
    return files_sha256([path for part in CODE_THAT_MATTERS for path in sorted((root / part).rglob("*.py"))])


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
