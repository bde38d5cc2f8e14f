"""How `auto` tells the formats apart: by a file's suffix, or by the keys of its first row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from aligner.data.readers.by_value import finer_format
from aligner.data.readers.files import (
    PAGE_SUFFIXES,
    TABLE_SUFFIXES,
    TASK_SUFFIXES,
    TEXT_SUFFIXES,
    plain_suffix,
)
from aligner.data.readers.formats import COLUMNS, FILE_READERS, READERS, read_records
from aligner.data.readers.kinds import Kind
from aligner.data.readers.records import Record, fault
from aligner.data.readers.tables import check_separator, read_cells
from aligner.data.rows import Origin
from aligner.errors import DataError, at

_FORMAT_OF_SUFFIX = {
    **dict.fromkeys(TEXT_SUFFIXES, "text"),
    **dict.fromkeys(PAGE_SUFFIXES, "html"),
    ".warc": "warc",
    **dict.fromkeys(TASK_SUFFIXES, "tasks"),
}
# The keys that tell a format apart, the most telling first.
_SIGNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("message_tree_id", "prompt"), "oasst"),
    (("messages", "label"), "kto"),
    (("prompt", "completion", "label"), "kto"),
    (("conversations", "chosen", "rejected"), "sharegpt_pairs"),
    (("instruction", "output_1", "output_2", "preference"), "alpaca_eval"),
    (("prompt", "chosen", "rejected"), "pairs"),
    (("chosen", "rejected"), "hh"),
    (("messages",), "messages"),
    (("prompt", "answers"), "rankings"),
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


def detect_format(path: Path, kind: Kind | None = None, skip: int = 0) -> str:
    """The format of a file: by its suffix for text and pages, else by the names in its first row or header.

    skip: rows at the beginning that may be none of any format; the first row that is of one then tells.

    Where formats share their names, the values of the first row tell which it is (see `finer_format`). A preference
    that has its conversation as messages, too, is `messages` where rows of another `kind` than pairs are wanted.
    """
    suffix = plain_suffix(path)
    if suffix in _FORMAT_OF_SUFFIX:
        return _FORMAT_OF_SUFFIX[suffix]
    return _table_format(path, kind) if suffix in TABLE_SUFFIXES else _format_of_rows(path, kind, skip)


def _table_format(path: Path, kind: Kind | None) -> str:
    rows = read_cells(path)
    line, cells = next(rows, (1, []))
    if not cells:
        raise _no_rows(path)
    check_separator(path, line, cells)
    _, values = next(rows, (1, []))
    named = dict.fromkeys(cells) | dict(zip(cells, values, strict=False))
    return detect_record(Record(Origin(str(path), line), named), kind, cells)


def _format_of_rows(path: Path, kind: Kind | None, skip: int) -> str:
    wrong: DataError | None = None
    for record in islice(read_records(path), skip + 1):
        try:
            if isinstance(record, DataError):
                raise record
            return detect_record(record, kind)
        except DataError as error:
            wrong = wrong or error
    raise wrong or _no_rows(path)


def _no_rows(path: Path) -> DataError:
    return fault(at(path), "the file has no rows", "name another file, or take it out of the recipe")


def detect_record(first: Record, kind: Kind | None = None, cells: Sequence[str] = ()) -> str:
    """The format of rows of which this is the first, as `detect_format`; `cells`: the first ones of a table."""
    name = format_of(first.value) or next((n for n, columns in COLUMNS.items() if columns.fits(cells)), None)
    if name == "pairs" and kind not in (None, "pair") and isinstance(first.value.get("messages"), list):
        name = "messages"
    if name is None:
        keys = ", ".join(first.value) or "none"
        remedy = f"set format: {' | '.join([*READERS, *FILE_READERS])}"
        raise fault(first.origin, f"no known format has these keys: {keys}", remedy)
    return name


def format_of(row: Mapping[str, object]) -> str | None:
    """The format whose keys the row has, or None."""
    name = next((name for keys, name in _SIGNS if all(key in row for key in keys)), None)
    return name and finer_format(name, row)
