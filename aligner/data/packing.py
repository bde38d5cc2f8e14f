"""Documents joined end to end and cut to blocks of one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aligner.data.rows import Document
from aligner.data.tokens import documents_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Block:
    """Tokens of a block. Two tokens may attend to each other only where their `document_ids` are equal."""

    input_ids: list[int]
    document_ids: list[int]

    @property
    def position_ids(self) -> list[int]:
        """Each token's place in its document's part of the block, from 0."""
        positions: list[int] = []
        for index, document in enumerate(self.document_ids):
            same = index > 0 and document == self.document_ids[index - 1]
            positions.append(positions[-1] + 1 if same else 0)
        return positions


def pack_documents(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerBase,
    *,
    block_length: int,
    isolate: bool,
    keep_rest: bool = False,
) -> list[Block]:
    """All documents' ids in order, in blocks of `block_length` tokens.

    The last tokens, too few for a block, are left out, or make a shorter block with `keep_rest`. With `isolate`
    the `document_ids` count the documents of a block from 0; without, all are 0: documents see those before.
    """
    ids: list[int] = []
    owners: list[int] = []
    for number, document in enumerate(documents_ids(documents, tokenizer)):
        ids += document
        owners += [number if isolate else 0] * len(document)
    end = len(ids) if keep_rest else len(ids) - len(ids) % block_length
    return [
        _block(ids[start : min(start + block_length, end)], owners[start : min(start + block_length, end)])
        for start in range(0, end, block_length)
    ]


def _block(ids: list[int], owners: list[int]) -> Block:
    return Block(ids, [owner - owners[0] for owner in owners])
