"""Readers: files in, canonical rows out. One table of formats, and how `auto` tells them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from aligner.data.readers import flan_cot, mmlu
from aligner.data.readers.alpaca import read_alpaca
from aligner.data.readers.aqua import read_aqua
from aligner.data.readers.belle import read_belle
from aligner.data.readers.completions import read_completions
from aligner.data.readers.documents import read_documents
from aligner.data.readers.dolly import read_dolly
from aligner.data.readers.files import (
    PAGE_SUFFIXES,
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    files_sha256,
    find_files,
    plain_suffix,
)
from aligner.data.readers.gsm8k import read_gsm8k
from aligner.data.readers.hh import read_hh
from aligner.data.readers.html import read_html
from aligner.data.readers.json_files import read_json
from aligner.data.readers.messages import read_messages
from aligner.data.readers.moss import read_moss
from aligner.data.readers.mt_bench import read_mt_bench
from aligner.data.readers.natural_instructions import read_natural_instructions
from aligner.data.readers.pairs import read_pairs
from aligner.data.readers.prompts import read_prompts
from aligner.data.readers.rankings import read_rankings
from aligner.data.readers.records import Record, fault
from aligner.data.readers.self_instruct import read_self_instruct
from aligner.data.readers.sharegpt import read_sharegpt
from aligner.data.readers.tables import Columns, read_cells, read_parquet, read_table
from aligner.data.readers.text import read_text
from aligner.data.readers.warc import read_warc
from aligner.data.rows import Conversation, Document, Dropped, Origin, Pair, Prompt, Row, Turn, row_turns
from aligner.errors import at
from aligner.recipe.data import ChatFormat, DocumentFormat, PairFormat, PromptFormat, SourceSpec

Kind = Literal["document", "conversation", "pair", "prompt"]

READERS: dict[str, Callable[[Record], Iterator[Row | Dropped]]] = {
    "documents": read_documents,
    "messages": read_messages,
    "alpaca": read_alpaca,
    "self_instruct": read_self_instruct,
    "gsm8k": read_gsm8k,
    "dolly": read_dolly,
    "completions": read_completions,
    "sharegpt": read_sharegpt,
    "moss": read_moss,
    "natural_instructions": read_natural_instructions,
    "flan_cot": flan_cot.read_flan_cot,
    "aqua": read_aqua,
    "mmlu": mmlu.read_mmlu,
    "belle": read_belle,
    "pairs": read_pairs,
    "rankings": read_rankings,
    "hh": read_hh,
    "prompts": read_prompts,
    "mt_bench": read_mt_bench,
}
# The formats that are no rows of named fields, and the suffixes they are known by.
FILE_READERS: dict[str, Callable[[Path], Iterator[Row | Dropped]]] = {
    "text": read_text,
    "html": read_html,
    "warc": read_warc,
}
_FORMAT_OF_SUFFIX = {
    **dict.fromkeys(TEXT_SUFFIXES, "text"),
    **dict.fromkeys(PAGE_SUFFIXES, "html"),
    ".warc": "warc",
}
# The formats of tables that have no header.
COLUMNS: dict[str, Columns] = {"flan_cot": flan_cot.COLUMNS, "mmlu": mmlu.COLUMNS}
FORMATS_OF: dict[Kind, tuple[str, ...]] = {
    "document": get_args(DocumentFormat),
    "conversation": get_args(ChatFormat),
    "pair": get_args(PairFormat),
    "prompt": get_args(PromptFormat),
}
# The keys that tell a format apart, the most telling first.
_SIGNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("messages",), "messages"),
    (("prompt", "answers"), "rankings"),
    (("prompt", "chosen", "rejected"), "pairs"),
    (("chosen", "rejected"), "hh"),
    (("instruction", "instances"), "self_instruct"),
    (("Definition", "Instances"), "natural_instructions"),
    (("instruction", "output"), "alpaca"),
    (("instruction", "context", "response"), "dolly"),
    (("instruction", "response"), "alpaca"),
    (("conversations",), "sharegpt"),
    (("meta_instruction", "chat"), "moss"),
    (("question", "options", "rationale", "correct"), "aqua"),
    (("question", "choices", "answer"), "mmlu"),
    (("question", "A", "B", "C", "D", "answer"), "mmlu"),
    (("question", "answer", "rationale"), "flan_cot"),
    (("question", "answer"), "gsm8k"),
    (("question", "std_answer"), "belle"),
    (("question_id", "turns"), "mt_bench"),
    (("prompt", "completion"), "completions"),
    (("prompt", "response"), "completions"),
    (("prompt",), "prompts"),
    (("user_prompt",), "prompts"),
    (("text",), "documents"),
)


@dataclass
class SourceRows:
    """What one source gave: the rows, and how many were dropped for which reason."""

    path: str
    format: str
    files: list[Path]
    rows: list[Row] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

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
                self.dropped[reason] += 1
        self.rows = kept

    def sha256(self) -> str:
        """Hash of the source's files."""
        return files_sha256(self.files)


def read_source(spec: SourceSpec, kind: Kind) -> SourceRows:
    """All rows of a source, as rows of `kind`.

    Raises `DataError` where a file is missing, a row is malformed, or the format gives rows of another kind.
    """
    files = find_files(spec.path)
    path = spec.path if isinstance(spec.path, str) else ", ".join(spec.path)
    formats: list[str] = []
    source = SourceRows(path, "", files)
    for file in files:
        name = detect_format(file) if spec.format == "auto" else spec.format
        if name not in FORMATS_OF[kind]:
            valid = ", ".join(FORMATS_OF[kind])
            raise fault(at(file), f'format "{name}" does not give {kind} rows', f"formats that do: {valid}")
        formats.append(name)
        for item in _read_file(file, name):
            given = item if isinstance(item, Dropped) else as_kind(item, kind)
            if isinstance(given, Dropped):
                source.dropped[given.reason] += 1
            else:
                source.rows.append(given)
    source.format = ", ".join(dict.fromkeys(formats))
    return source


def _read_file(path: Path, name: str) -> Iterator[Row | Dropped]:
    if name in FILE_READERS:
        yield from FILE_READERS[name](path)
        return
    for record in read_records(path, COLUMNS.get(name)):
        yield from READERS[name](record)


def read_records(path: Path, columns: Columns | None = None) -> Iterator[Record]:
    """The rows of a file in order, by its suffix; `columns` are those of a format without header."""
    suffix = plain_suffix(path)
    if suffix == ".parquet":
        return read_parquet(path)
    return read_table(path, columns) if suffix in TABLE_SUFFIXES else read_json(path)


def detect_format(path: Path) -> str:
    """The format of a file: by its suffix for text and pages, else by the names in its first row or header."""
    suffix = plain_suffix(path)
    if suffix in _FORMAT_OF_SUFFIX:
        return _FORMAT_OF_SUFFIX[suffix]
    cells: list[str] = []
    if suffix in TABLE_SUFFIXES:
        line, cells = next(read_cells(path), (1, []))
        first = Record(Origin(str(path), line), dict.fromkeys(cells)) if cells else None
    else:
        first = next(read_records(path), None)
    if first is None:
        raise fault(at(path), "the file has no rows", "name another file, or take it out of the recipe")
    name = format_of(first.value) or next((n for n, columns in COLUMNS.items() if columns.fits(cells)), None)
    if name is None:
        keys = ", ".join(first.value) or "none"
        remedy = f"set format: {' | '.join([*READERS, *FILE_READERS])}"
        raise fault(first.origin, f"no known format has these keys: {keys}", remedy)
    return name


def format_of(row: Mapping[str, object]) -> str | None:
    """The format whose keys the row has, or None."""
    return next((name for keys, name in _SIGNS if all(key in row for key in keys)), None)


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
    return Dropped(row.origin, "no_answer") if isinstance(row, Prompt) else row


def _as_document(row: Row) -> Row | Dropped:
    if any(turn.about_tools for turn in row_turns(row)):
        return Dropped(row.origin, "tool_calls")  # no tokenizer is there yet to tell whether it renders them
    if isinstance(row, Conversation):
        return Document(row.origin, turns=row.turns)
    if isinstance(row, Pair):
        return Document(row.origin, turns=(*row.prompt, Turn("assistant", row.chosen)))
    return Dropped(row.origin, "no_answer") if isinstance(row, Prompt) else row


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
