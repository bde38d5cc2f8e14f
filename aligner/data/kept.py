"""Ready rows made once and read again: kept under a fingerprint of everything that decides a row.

That is the data section, the bytes of every file and the commit of every data set on the Hub that it names, the
tokenizer with its template, the seed, this package's own code for data and recipes, the libraries' versions and, for a
template that writes it, the day.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from aligner.data.assembly import Built
from aligner.data.cleaning.perplexity import scores_file
from aligner.data.instances import Epochs, one_epoch
from aligner.data.keeping import fingerprint_of, worth_keeping
from aligner.data.prefixes import plain_backend
from aligner.data.read_before import AsKind, mark_read
from aligner.data.readers.files import find_files
from aligner.data.readers.kinds import Kind, kind_read
from aligner.data.row_store import RowStore
from aligner.data.stored import Asked, can_be_kept, read_rows, write_rows
from aligner.errors import DataError
from aligner.recipe.clean import CleanSpec
from aligner.recipe.data import DataSpec, PairDataSpec
from aligner.recipe.ppo import PromptsSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

T = TypeVar("T")
RowsSpec = DataSpec | PromptsSpec


@dataclass(frozen=True)
class Wanted:
    """What decides rows."""

    spec: RowsSpec
    tokenizer: PreTrainedTokenizerBase
    seed: int

    def fingerprint(self) -> str | None:
        """See `rows_fingerprint`."""
        return rows_fingerprint(self.spec, self.tokenizer, seed=self.seed)


def kept(
    folder: Path | None,
    wanted: Wanted,
    store: type[RowStore[T]],
    build: Callable[[Epochs], Built[T]],
    epochs: Epochs = one_epoch,
) -> Built[T]:
    """What `build` makes, or made before with the same fingerprint; samples of dropped rows are not kept.

    folder: where rows are kept; None keeps none. A broken file is made again. Two processes at once make the same
    file, and the last one puts its own in place. Files that were not used for longest are deleted.
    """
    before = wanted.fingerprint() if folder else None
    if folder is None or before is None:
        return build(epochs)
    if found := _found(folder, before, store, epochs):
        return found
    asked: Asked = []

    def noted(rows: int) -> int:
        asked.append((rows, epochs(rows)))
        return asked[-1][1]

    made = build(noted)
    # a file that was changed while it was read has rows that are of no fingerprint
    if worth_keeping(len(made.train)) and can_be_kept(made) and wanted.fingerprint() == before:
        # rows of tasks are rendered anew for each epoch, so recipes of unequal epochs have a file each
        begun = "".join(f"-{count}" for _, count in asked)
        _keep(folder / f"{before}{begun}.rows", made, asked)
        mark_read(_sources(wanted.spec), folder)
    return made


def _keep(path: Path, made: Built[T], asked: Asked) -> None:
    """Write what was made, with a word where it cannot be written."""
    try:
        write_rows(path, made, asked)
    except OSError as error:
        logger.warning("the tokenised rows are not kept: %s cannot be written (%s)", path, error.strerror)


def _found(folder: Path, fingerprint: str, store: type[RowStore[T]], epochs: Epochs) -> Built[T] | None:
    """The rows of a file with this fingerprint that begins as many epochs."""
    for path in sorted(folder.glob(f"{fingerprint}*.rows")):
        if found := read_rows(path, store, epochs):
            with suppress(OSError):
                path.touch()  # the files that were used last stay
            return found
    return None


def rows_fingerprint(spec: RowsSpec, tokenizer: PreTrainedTokenizerBase, *, seed: int) -> str | None:
    """16 hex digits that change with anything that changes a row.

    None where that cannot be told: a file is missing, or the tokenizer is not one of the `tokenizers` library alone.
    """
    backend = plain_backend(tokenizer)
    if backend is None:
        return None
    known = {
        "data": [type(spec).__name__, spec.model_dump(mode="json")],
        "seed": seed,
        "tokenizer": [backend.to_str(), tokenizer.chat_template, str(tokenizer.special_tokens_map)],
        # A template that writes the day (Llama 3's do) gives other rows tomorrow.
        "day": str(date.today()) if "strftime_now" in str(tokenizer.chat_template) else None,
    }
    try:
        return fingerprint_of(known, [source for source, _ in _sources(spec)], _cleaned_with(spec.clean))
    except (DataError, OSError):  # told by the build
        return None


def _sources(spec: RowsSpec) -> list[AsKind]:
    """Every source of the rows, and the kind of rows that are read from it."""
    kind = _kind_of(spec)
    held = spec.holdout if isinstance(spec, PromptsSpec) else spec.holdout.sources
    evaluations = spec.decontaminate.against if spec.decontaminate else []
    return [
        *((source, kind_read(source, kind)) for source in spec.train),
        *((source, kind) for source in held),
        *((source, None) for source in evaluations),
    ]


def _kind_of(spec: RowsSpec) -> Kind:
    if isinstance(spec, PromptsSpec):
        return "prompt"
    return "pair" if isinstance(spec, PairDataSpec) else "conversation"


def _cleaned_with(spec: CleanSpec) -> list[list[Path]]:
    """The files of words and of scores."""
    words = [find_files(spec.words)] if spec.words else []
    return [*words, [scores_file(spec.perplexity.scores)]] if spec.perplexity else words
