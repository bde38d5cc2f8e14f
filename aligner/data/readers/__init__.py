"""Readers: files in, canonical rows out. One table of formats, and how `auto` tells them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from aligner.data.readers.alpaca import read_alpaca
from aligner.data.readers.alpaca_eval import read_alpaca_eval
from aligner.data.readers.alpaca_rankings import read_alpaca_rankings
from aligner.data.readers.by_value import finer_format
from aligner.data.readers.documents import read_documents
from aligner.data.readers.files import TEXT_SUFFIXES, files_sha256, find_files, joined, plain_suffix
from aligner.data.readers.gsm8k import read_gsm8k
from aligner.data.readers.hh import read_hh
from aligner.data.readers.kto import read_kto
from aligner.data.readers.messages import read_messages
from aligner.data.readers.oasst import read_oasst, read_oasst_chats
from aligner.data.readers.pairs import read_pairs
from aligner.data.readers.prompts import read_prompts
from aligner.data.readers.rankings import read_rankings
from aligner.data.readers.ratings import read_ratings
from aligner.data.readers.records import Record, fault, read_records
from aligner.data.readers.rules import read_rules
from aligner.data.readers.self_instruct import read_self_instruct
from aligner.data.readers.sharegpt_pairs import read_sharegpt_pairs
from aligner.data.readers.text import read_text
from aligner.data.rows import Conversation, Document, Dropped, Pair, Prompt, Rated, Row, Turn
from aligner.errors import at
from aligner.recipe.data import ChatFormat, DocumentFormat, PairFormat, PromptFormat, SourceSpec

Kind = Literal["document", "conversation", "pair", "prompt"]

Reader = Callable[[Record], Iterator[Row | Dropped | Rated]]

READERS: dict[str, Reader] = {
    "documents": read_documents,
    "messages": read_messages,
    "alpaca": read_alpaca,
    "self_instruct": read_self_instruct,
    "gsm8k": read_gsm8k,
    "pairs": read_pairs,
    "rankings": read_rankings,
    "hh": read_hh,
    "sharegpt_pairs": read_sharegpt_pairs,
    "kto": lambda record: read_kto([record]),  # a whole file is read together: `_read_file`
    "alpaca_rankings": read_alpaca_rankings,
    "alpaca_eval": read_alpaca_eval,
    "oasst": read_oasst,
    "ratings": read_ratings,
    "rules": read_rules,
    "prompts": read_prompts,
}
FORMATS_OF: dict[Kind, tuple[str, ...]] = {
    "document": get_args(DocumentFormat),
    "conversation": get_args(ChatFormat),
    "pair": get_args(PairFormat),
    "prompt": get_args(PromptFormat),
}
# The keys that tell a format apart, the most telling first.
_SIGNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("message_tree_id", "prompt"), "oasst"),
    (("messages", "label"), "kto"),
    (("prompt", "completion", "label"), "kto"),
    (("conversations", "chosen", "rejected"), "sharegpt_pairs"),
    (("instruction", "output_1", "output_2", "preference"), "alpaca_eval"),
    (("messages",), "messages"),
    (("prompt", "answers"), "rankings"),
    (("prompt", "chosen", "rejected"), "pairs"),
    (("chosen", "rejected"), "hh"),
    (("instruction", "instances"), "self_instruct"),
    (("instruction", "output"), "alpaca"),
    (("question", "answer"), "gsm8k"),
    (("prompt",), "prompts"),
    (("text",), "documents"),
)


MAX_SAMPLES = 10  # dropped rows kept of each reason of a source


@dataclass
class SourceRows:
    """What one source gave: the rows, and how many were dropped for which reason.

    rated: what annotators said, where several rated an answer. noted: rows in which something was found that is no
    reason to drop them. changed: what cleaning changed in the rows, dropped later or not (see `clean_sources`).
    samples: the first few dropped rows by reason, so that one can look at them.
    """

    path: str
    format: str
    files: list[Path]
    rows: list[Row] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    rated: list[Rated] = field(default_factory=list)
    noted: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[Row | Dropped]] = field(default_factory=dict)

    @property
    def rows_read(self) -> int:
        """Rows in the files: those that are here and those that were dropped."""
        return len(self.rows) + self.dropped.total()

    def keep(self, reason_against: Callable[[Row], str | None]) -> None:
        """Drop, and count, the rows that have a reason against them."""
        kept: list[Row] = []
        for row in self.rows:
            reason = reason_against(row)
            if reason is None:
                kept.append(row)
            else:
                self.drop(row, reason)
        self.rows = kept

    def drop(self, row: Row | Dropped, reason: str) -> None:
        """Count a row that is not, or no longer, among `rows`; the first of each reason are kept as samples."""
        self.dropped[reason] += 1
        samples = self.samples.setdefault(reason, [])
        if len(samples) < MAX_SAMPLES:
            samples.append(row)

    def sha256(self) -> str:
        """Hash of the source's files."""
        return files_sha256(self.files)


def read_source(spec: SourceSpec, kind: Kind) -> SourceRows:
    """All rows of a source, as rows of `kind`.

    Raises `DataError` where a file is missing, a row is malformed, or the format gives rows of another kind or has no
    use for the source's criteria.
    """
    files = find_files(spec.path)
    formats: list[str] = []
    source = SourceRows(joined(spec.path), "", files)
    for file in files:
        name = detect_format(file) if spec.format == "auto" else spec.format
        if name not in FORMATS_OF[kind]:
            valid = ", ".join(FORMATS_OF[kind])
            raise fault(at(file), f'format "{name}" does not give {kind} rows', f"formats that do: {valid}")
        if spec.criteria and name not in ("ratings", "rules"):
            raise fault(at(file), f'format "{name}" has no criteria', "leave criteria out of this source")
        formats.append(name)
        for item in _read_file(file, name, kind, spec.criteria):
            if isinstance(item, Rated):
                source.rated.append(item)
                continue
            given = item if isinstance(item, Dropped) else as_kind(item, kind)
            if isinstance(given, Dropped):
                source.drop(given, given.reason)
            else:
                source.rows.append(given)
    source.format = ", ".join(dict.fromkeys(formats))
    return source


def _read_file(
    path: Path, name: str, kind: Kind, criteria: Mapping[str, float]
) -> Iterator[Row | Dropped | Rated]:
    if name == "text":
        yield from read_text(path)
    elif name == "kto":
        yield from read_kto(read_records(path))
    else:
        reader = _reader(name, kind, criteria)
        for record in read_records(path):
            yield from reader(record)


def _reader(name: str, kind: Kind, criteria: Mapping[str, float]) -> Reader:
    """The reader of a format's rows, by what is wanted of them."""
    if name == "oasst" and kind == "conversation":
        return read_oasst_chats
    if name in ("ratings", "rules"):
        return partial(read_ratings if name == "ratings" else read_rules, criteria=criteria)
    return READERS[name]


def detect_format(path: Path) -> str:
    """The format of a file: by its suffix for plain text, else by the keys of its first row."""
    if plain_suffix(path) in TEXT_SUFFIXES:
        return "text"
    first = next(read_records(path), None)
    if first is None:
        raise fault(at(path), "the file has no rows", "name another file, or take it out of the recipe")
    name = format_of(first.value)
    if name is None:
        keys = ", ".join(first.value) or "none"
        raise fault(
            first.origin, f"no known format has these keys: {keys}", f"set format: {' | '.join(READERS)}"
        )
    return name


def format_of(row: Mapping[str, object]) -> str | None:
    """The format whose keys the row has, or None."""
    name = next((name for keys, name in _SIGNS if all(key in row for key in keys)), None)
    return name and finer_format(name, row)


def as_kind(row: Row, kind: Kind) -> Row | Dropped:
    """The row as a row of `kind`: a conversation can be pretrained on, or be asked; a pair too."""
    if kind == "document":
        return _as_document(row)
    if kind == "prompt":
        return _as_prompt(row)
    if isinstance(row, Conversation):
        last = max((i for i, turn in enumerate(row.turns) if turn.role == "assistant"), default=-1)
        if last < 0:
            return Dropped(row.origin, "no_answer")
        if last == 0:
            return Dropped(row.origin, "no_prompt")
        return Conversation(
            row.origin, row.turns[: last + 1], row.family
        )  # what follows cannot be learnt from
    return row


def _as_document(row: Row) -> Row:
    if isinstance(row, Conversation):
        return Document(row.origin, turns=row.turns)
    if isinstance(row, Pair):
        return Document(row.origin, turns=(*row.prompt, Turn("assistant", row.chosen)))
    return row


def _as_prompt(row: Row) -> Row | Dropped:
    if isinstance(row, Pair):
        return Prompt(row.origin, row.prompt, row.kind)
    if isinstance(row, Conversation):
        last = max((i for i, turn in enumerate(row.turns) if turn.role == "user"), default=-1)
        return (
            Prompt(row.origin, row.turns[: last + 1], row.family)
            if last >= 0
            else Dropped(row.origin, "no_prompt")
        )
    return row
