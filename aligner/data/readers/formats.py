"""Every format: the reader of its rows, and the kinds of rows that it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import get_args

from aligner.data.readers import flan_cot, mmlu
from aligner.data.readers.alpaca import read_alpaca
from aligner.data.readers.alpaca_eval import read_alpaca_eval
from aligner.data.readers.alpaca_rankings import read_alpaca_rankings
from aligner.data.readers.aqua import read_aqua
from aligner.data.readers.belle import read_belle
from aligner.data.readers.completions import read_completions
from aligner.data.readers.documents import read_documents
from aligner.data.readers.dolly import read_dolly
from aligner.data.readers.files import TABLE_SUFFIXES, plain_suffix
from aligner.data.readers.gsm8k import read_gsm8k
from aligner.data.readers.hh import read_hh
from aligner.data.readers.html import read_html
from aligner.data.readers.json_files import read_json
from aligner.data.readers.kinds import Kind
from aligner.data.readers.kto import read_kto
from aligner.data.readers.messages import read_messages
from aligner.data.readers.moss import read_moss
from aligner.data.readers.mt_bench import read_mt_bench
from aligner.data.readers.natural_instructions import read_natural_instructions
from aligner.data.readers.oasst import read_oasst, read_oasst_chats
from aligner.data.readers.pairs import read_pairs
from aligner.data.readers.prompts import read_prompts
from aligner.data.readers.rankings import read_rankings
from aligner.data.readers.ratings import read_ratings
from aligner.data.readers.records import Record
from aligner.data.readers.rules import read_rules
from aligner.data.readers.self_instruct import read_self_instruct
from aligner.data.readers.sharegpt import read_sharegpt
from aligner.data.readers.sharegpt_pairs import read_sharegpt_pairs
from aligner.data.readers.tables import Columns, read_parquet, read_table
from aligner.data.readers.text import read_text
from aligner.data.readers.tool_calls import has_tools
from aligner.data.readers.warc import read_warc
from aligner.data.rows import Dropped, Rated, Row
from aligner.errors import DataError
from aligner.recipe.data import ConversationFormat, DocumentFormat, PairFormat, PromptFormat

Reader = Callable[[Record], Iterator[Row | Dropped | Rated]]

READERS: dict[str, Reader] = {
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
    "sharegpt_pairs": read_sharegpt_pairs,
    "kto": lambda record: read_kto([record]),  # a whole file is read together: `read_rows`
    "alpaca_rankings": read_alpaca_rankings,
    "alpaca_eval": read_alpaca_eval,
    "oasst": read_oasst,
    "ratings": read_ratings,
    "rules": read_rules,
    "prompts": read_prompts,
    "mt_bench": read_mt_bench,
}
# The formats that are no rows of named fields.
FILE_READERS: dict[str, Callable[[Path], Iterator[Row | Dropped]]] = {
    "text": read_text,
    "html": read_html,
    "warc": read_warc,
}
# The formats of tables that have no header.
COLUMNS: dict[str, Columns] = {"flan_cot": flan_cot.COLUMNS, "mmlu": mmlu.COLUMNS}
# The formats that read tools; of documents, the text is all there is to read.
TOOL_FORMATS = ("messages", "sharegpt", "sharegpt_pairs", "documents")
FORMATS_OF: dict[Kind, tuple[str, ...]] = {
    "document": get_args(DocumentFormat),
    "conversation": get_args(ConversationFormat),
    "pair": get_args(PairFormat),
    "prompt": get_args(PromptFormat),
}


def read_rows(
    path: Path, name: str, kind: Kind | None, criteria: Mapping[str, float]
) -> Iterator[Row | Dropped | Rated | DataError]:
    """What a file in the format `name` holds, where rows of `kind` (None: any) are wanted; of a bad row its error.

    Rows with tools are `tool_calls` in a format that reads none: without them the answers would be other ones.
    """
    if name in FILE_READERS:
        yield from FILE_READERS[name](path)
    else:
        yield from rows_of(read_records(path, COLUMNS.get(name)), name, kind, criteria)


def rows_of(
    records: Iterator[Record | DataError], name: str, kind: Kind | None, criteria: Mapping[str, float]
) -> Iterator[Row | Dropped | Rated | DataError]:
    """What these records hold, as `read_rows`."""
    if name == "kto":
        yield from read_kto(records)
        return
    reader = _reader(name, kind, criteria)
    for record in records:
        if isinstance(record, DataError):
            yield record
        elif name not in TOOL_FORMATS and has_tools(record.value):
            yield Dropped(record.origin, "tool_calls")
        else:
            yield from _read_record(reader, record)


def _read_record(reader: Reader, record: Record) -> Iterator[Row | Dropped | Rated | DataError]:
    try:
        yield from list(reader(record))  # all of it or nothing: of a bad row no part is used
    except DataError as error:
        yield error


def _reader(name: str, kind: Kind | None, criteria: Mapping[str, float]) -> Reader:
    """The reader of a format's rows, by what is wanted of them."""
    if name == "oasst" and kind != "pair":
        return read_oasst_chats
    if name in ("ratings", "rules"):
        return partial(read_ratings if name == "ratings" else read_rules, criteria=criteria)
    return READERS[name]


def read_records(path: Path, columns: Columns | None = None) -> Iterator[Record | DataError]:
    """The rows of a file in order, by its suffix; `columns` are those of a format without header."""
    suffix = plain_suffix(path)
    if suffix == ".parquet":
        return read_parquet(path)
    return read_table(path, columns) if suffix in TABLE_SUFFIXES else read_json(path)
