"""Rows as pieces of text, each with what becomes of it; a terminal and a page show the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Literal, NamedTuple

from aligner.data.report import DataReport, SourceReport
from aligner.data.rows import Document, Dropped, Row, row_text
from aligner.data.templates import control_tokens
from aligner.data.tokens import PairRow, PromptRow, TokenRow, document_ids
from aligner.errors import visible as visible  # what shows rows asks for it here

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Fate = Literal["learnt", "rejected", ""]
SHOWN_CHARS = 300  # of a dropped row


class Piece(NamedTuple):
    """A run of tokens of one kind: learnt (or chosen), rejected or context; control tokens or not."""

    text: str
    fate: Fate
    control: bool


class ShownRow(NamedTuple):
    """A row under its title, on one line; a pair on two, the chosen answer first."""

    title: str
    lines: list[list[Piece]]


def shown_row(row: TokenRow | PairRow | PromptRow, tokenizer: PreTrainedTokenizerBase) -> ShownRow:
    """A row as the model sees it."""
    if isinstance(row, TokenRow):
        fates: list[Fate] = ["learnt" if counts else "" for counts in row.supervised]
        lines = [pieces(row.input_ids, fates, tokenizer)]
    elif isinstance(row, PromptRow):
        lines = [pieces(row.input_ids, [""] * len(row.input_ids), tokenizer)]
    else:
        lines = [
            _side(row.chosen_ids, row.prompt_length, "learnt", tokenizer),
            _side(row.rejected_ids, row.prompt_length, "rejected", tokenizer),
        ]
    return ShownRow(_title(row), lines)


def shown_document(document: Document, tokenizer: PreTrainedTokenizerBase) -> ShownRow:
    """A document as pretraining sees it; all of it is learnt, so no piece says so."""
    ids = document_ids(document, tokenizer)
    return ShownRow(f"{document.origin}, {len(ids)} tokens", [pieces(ids, [""] * len(ids), tokenizer)])


def pieces(ids: Sequence[int], fates: Sequence[Fate], tokenizer: PreTrainedTokenizerBase) -> list[Piece]:
    """Ids as text, each run of one kind decoded whole (a letter may be several ids)."""
    controls = {tokenizer.convert_tokens_to_ids(token) for token in control_tokens(tokenizer)}
    kinds = [(fate, token in controls) for token, fate in zip(ids, fates, strict=True)]
    found = []
    for (fate, control), run in groupby(zip(ids, kinds, strict=True), key=lambda entry: entry[1]):
        tokens = [token for token, _ in run]
        text = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        found.append(Piece(str(text), fate, control))
    return found


def parts_of(report: DataReport) -> Iterator[tuple[str, SourceReport]]:
    """Every source whose rows the stage uses, with the part it stands in."""
    parts = (("train", report.train), ("curriculum", report.curriculum), ("holdout", report.holdout))
    yield from ((part, source) for part, sources in parts for source in sources)


def dropped_text(row: Row | Dropped) -> str:
    """A dropped row on one line, a long one by its beginning; of one that could not be read what is wrong with it."""
    text = " ".join((row.what if isinstance(row, Dropped) else row_text(row)).split())
    return f"{text[:SHOWN_CHARS]}..." if len(text) > SHOWN_CHARS else text


def _side(
    ids: Sequence[int], prompt_length: int, fate: Fate, tokenizer: PreTrainedTokenizerBase
) -> list[Piece]:
    prompt: list[Fate] = [""] * prompt_length
    return pieces(ids, prompt + [fate] * (len(ids) - prompt_length), tokenizer)


def _title(row: TokenRow | PairRow | PromptRow) -> str:
    if isinstance(row, PairRow):
        return f"{row.kind or 'pair'}, {len(row.chosen_ids)} and {len(row.rejected_ids)} tokens"
    if isinstance(row, PromptRow):
        return f"{row.prompt.family or 'prompt'} ({row.prompt.origin}), {len(row.input_ids)} tokens"
    written = f" ({row.template}, {row.shots} shots)" if row.template else ""
    lengths = f"{len(row.input_ids)} tokens, {sum(row.supervised)} supervised"
    return f"{row.family or 'conversation'}{written}, {lengths}"
