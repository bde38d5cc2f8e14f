"""Conversations made once and read again: kept under a fingerprint of everything that decides a row.

That is the data section, the bytes of every file and the commit of every data set on the Hub that it names, the
tokenizer with its template, the seed, this package's own code for data and recipes, the libraries' versions and, for a
template that writes it, the day. Only where there are many rows: few are made in no time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import aligner
from aligner.data.build import Conversations, build_conversations
from aligner.data.cleaning.perplexity import scores_file
from aligner.data.instances import Epochs, one_epoch
from aligner.data.prefixes import plain_backend
from aligner.data.readers import source_files, source_identity
from aligner.data.readers.files import files_sha256, find_files
from aligner.data.stored import Asked, read_conversations, write_conversations
from aligner.errors import DataError
from aligner.recipe.data import DataSpec, SourceSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEWEST_ROWS = 5000  # that are kept
MOST_FILES = 20  # of 4 bytes a token; a folder of all of them may be deleted at any time
CODE_THAT_MATTERS = ("data", "recipe", "sandbox")
LIBRARIES_THAT_MATTER = (
    "tokenizers", "transformers", "datasets", "jinja2", "numpy", "pyarrow", "trafilatura", "warcio", "ftfy",
    "py3langid", "krippendorff", "lxml", "justext", "charset-normalizer",
)  # fmt: skip

# Whole, and begun by a process that died; `.safetensors` is what they were before.
_OUR_NAME = re.compile(r"[0-9a-f]{16}(-\d+)*\.(rows|safetensors)|\.tmp-.*\.(rows|safetensors).*")

logger = logging.getLogger(__name__)


def kept_conversations(
    folder: Path | None,
    spec: DataSpec,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    epochs: Epochs = one_epoch,
) -> Conversations:
    """`build_conversations`, or what it made before with the same fingerprint; samples of dropped rows are not kept.

    folder: where rows are kept; None keeps none. A broken file there is made again. Two processes at once make the
    same file, and the last one puts its own in place. Files that were not used for longest are deleted.
    """
    fingerprint = rows_fingerprint(spec, tokenizer, seed=seed) if folder else None
    if folder is None or fingerprint is None:
        return build_conversations(spec, tokenizer, seed=seed, epochs=epochs)
    if found := _found(folder, fingerprint, epochs):
        return found
    asked: Asked = []

    def noted(rows: int) -> int:
        asked.append((rows, epochs(rows)))
        return asked[-1][1]

    made = build_conversations(spec, tokenizer, seed=seed, epochs=noted)
    # a file that was changed while it was read has rows that are of no fingerprint
    if len(made.train) >= FEWEST_ROWS and rows_fingerprint(spec, tokenizer, seed=seed) == fingerprint:
        # rows of tasks are rendered anew for each epoch, so recipes of unequal epochs have a file each
        begun = "".join(f"-{count}" for _, count in asked)
        path = folder / f"{fingerprint}{begun}.rows"
        try:
            write_conversations(path, made, asked)
        except OSError as error:
            logger.warning("the tokenised rows are not kept: %s cannot be written (%s)", path, error.strerror)
        _clear(folder)
    return made


def _found(folder: Path, fingerprint: str, epochs: Epochs) -> Conversations | None:
    """The rows of a file with this fingerprint that begins as many epochs."""
    for path in sorted(folder.glob(f"{fingerprint}*.rows")):
        if found := read_conversations(path, epochs):
            with suppress(OSError):
                path.touch()  # the files that were used last stay
            return found
    return None


def _clear(folder: Path) -> None:
    """Delete all of our files but those that were used last, and with them what killed processes left."""
    with suppress(OSError):  # another process may clear at the same moment
        ours = [path for path in folder.iterdir() if _OUR_NAME.fullmatch(path.name) and path.is_file()]
        for path in sorted(ours, key=lambda path: path.stat().st_mtime)[:-MOST_FILES]:
            path.unlink(missing_ok=True)


def rows_fingerprint(spec: DataSpec, tokenizer: PreTrainedTokenizerBase, *, seed: int) -> str | None:
    """16 hex digits that change with anything that changes a row.

    None where that cannot be told: a file is missing, or the tokenizer is not one of the `tokenizers` library alone.
    """
    backend = plain_backend(tokenizer)
    if backend is None:
        return None
    try:
        files = list(_files(spec))
        hub = list(map(source_identity, _sources(spec)))
    except DataError:  # told by the build
        return None
    known = {
        "data": spec.model_dump(mode="json"),
        "seed": seed,
        "files": [[str(file) for file in group] for group in files],
        "bytes": [files_sha256(group) for group in files],
        "hub": hub,
        "tokenizer": [backend.to_str(), tokenizer.chat_template, str(tokenizer.special_tokens_map)],
        "code": [files_sha256(_code()), sys.version],
        # A template that writes the day (Llama 3's do) gives other rows tomorrow.
        "day": str(date.today()) if "strftime_now" in str(tokenizer.chat_template) else None,
        "libraries": [_version(name) for name in LIBRARIES_THAT_MATTER],
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def _sources(spec: DataSpec) -> list[SourceSpec]:
    evaluations = spec.decontaminate.against if spec.decontaminate else []
    return [*spec.train, *spec.holdout.sources, *evaluations]


def _files(spec: DataSpec) -> Iterator[list[Path]]:
    yield from map(source_files, _sources(spec))
    if spec.clean.words:
        yield find_files(spec.clean.words)
    if spec.clean.perplexity:
        yield [scores_file(spec.clean.perplexity.scores)]


def _code() -> list[Path]:
    root = Path(aligner.__file__).parent
    return [path for part in CODE_THAT_MATTERS for path in sorted((root / part).rglob("*.py"))]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
