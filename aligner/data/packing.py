"""Documents joined end to end and cut to blocks of one length; whole rows fitted into packs."""

from __future__ import annotations

from collections import defaultdict
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


def best_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Every index of `lengths` in one pack, the lengths (1 to `room`) of a pack together at most `room`; no row is cut.

    Best fit decreasing, as in Ding et al. 2024 (arXiv:2404.10830): the longest row first, each into the pack that it
    leaves the least room in. Rows of one length come in the order they are given, so which rows share a pack is up to
    the caller's order, how many packs there are is not. n log n, a long integer of `room` bits at hand.
    """
    packs: list[list[int]] = []
    with_room: dict[int, list[int]] = defaultdict(list)  # tokens of room left -> packs
    rooms = 0  # the bits that are set are the keys of `with_room` that hold a pack
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[index]
        fitting = rooms >> length
        if fitting:
            left = (fitting & -fitting).bit_length() - 1
            pack = with_room[left + length].pop()
            if not with_room[left + length]:
                rooms ^= 1 << left + length
        else:
            left, pack = room - length, len(packs)
            packs.append([])
        packs[pack].append(index)
        with_room[left].append(pack)
        rooms |= 1 << left
    return packs
