"""From ready rows to batches: padding on the right, masks by position, targets shifted by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from aligner.data.packing import Block
from aligner.data.tokens import TokenRow
from aligner.models.padding import right_padded
from aligner.stages.losses import IGNORED

Batch = dict[str, Tensor]
CPU = torch.device("cpu")  # batches are made here and moved by the Trainer


LOWEST = torch.finfo(torch.float32).min


class LabelledRow(TypedDict):
    """A conversation as TRL's data sets hold it: `labels` are the ids to be learnt, `IGNORED` elsewhere."""

    input_ids: list[int]
    labels: list[int]


def labelled(row: TokenRow) -> LabelledRow:
    """A row in TRL's columns."""
    return {"input_ids": row.input_ids, "labels": row.labels}


class EntryNumber(TypedDict):
    """Which of the rows, or of the batches that were planned beforehand."""

    number: int


def numbers_of(count: int) -> Dataset:
    """The data set of a training whose rows, or batches, lie elsewhere."""
    return Dataset.from_dict({"number": np.arange(count)})


class PairColumns(TypedDict, total=False):
    """A pair as TRL's data sets hold it; `margin` in all rows or in none, and so `weight`.

    `reference`: log p(answer | prompt) of the chosen and of the rejected answer under the reference, in nats. `other`:
    the same prompt with another pair's answers.
    """

    chosen_ids: list[int]
    rejected_ids: list[int]
    prompt_length: int
    margin: float
    weight: float
    reference: list[float]
    other: PairColumns


class AnswerCollator:
    """Labelled rows to `input_ids`, `attention_mask` and `targets` (B, T): targets[t] is the label of t + 1."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[LabelledRow]) -> Batch:
        ids_BT, mask_BT = right_padded([row["input_ids"] for row in rows], pad_id=self.pad_id, device=CPU)
        next_labels = [[*row["labels"][1:], IGNORED] for row in rows]
        targets_BT, _ = right_padded(next_labels, pad_id=IGNORED, device=CPU)
        return {"input_ids": ids_BT, "attention_mask": mask_BT.long(), "targets": targets_BT}


class NumberCollator:
    """The numbers of rows to what `collate` makes of them: a row is read when its batch is made."""

    def __init__(self, read: Callable[[int], Any], collate: Callable[[list[Any]], Batch]) -> None:
        self.read, self.collate = read, collate

    def __call__(self, numbers: Sequence[EntryNumber]) -> Batch:
        return self.collate([self.read(each["number"]) for each in numbers])


class PackCollator:
    """The numbers of `batches` to `input_ids`, `position_ids` and `targets` (B, T), and `lengths` (B,), padding aside.

    A batch is packs of rows, a pack a line. Positions start anew with each row, and there is no `attention_mask`: so
    transformers' models know that the rows of a line are not to see each other (see `check_isolation`).
    """

    def __init__(
        self, rows: Sequence[TokenRow], batches: Sequence[Sequence[Sequence[int]]], pad_id: int
    ) -> None:
        self.rows, self.batches, self.pad_id = rows, batches, pad_id

    def __call__(self, numbers: Sequence[EntryNumber]) -> Batch:
        lines = [
            [labelled(self.rows[row]) for row in pack]
            for each in numbers
            for pack in self.batches[each["number"]]
        ]
        ids = [[token for row in line for token in row["input_ids"]] for line in lines]
        places = [[place for row in line for place in range(len(row["input_ids"]))] for line in lines]
        targets = [[label for row in line for label in (*row["labels"][1:], IGNORED)] for line in lines]
        return {
            "input_ids": right_padded(ids, pad_id=self.pad_id, device=CPU)[0],
            "position_ids": right_padded(places, pad_id=0, device=CPU)[0],
            "targets": right_padded(targets, pad_id=IGNORED, device=CPU)[0],
            "lengths": torch.tensor([len(line) for line in ids]),
        }


class PairCollator:
    """B pairs to `input_ids` and `attention_mask` (2B, T), chosen first, and `prompt_lengths` (2B,).

    Also `margin` (B,), `weight` (B,) and `reference` (2B,), where the pairs have them.
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, pairs: Sequence[PairColumns]) -> Batch:
        rows = [pair["chosen_ids"] for pair in pairs] + [pair["rejected_ids"] for pair in pairs]
        ids_BT, mask_BT = right_padded(rows, pad_id=self.pad_id, device=CPU)
        lengths_B = torch.tensor([pair["prompt_length"] for pair in pairs] * 2)
        batch = {"input_ids": ids_BT, "attention_mask": mask_BT.long(), "prompt_lengths": lengths_B}
        for key in ("margin", "weight"):
            if key in pairs[0]:
                batch[key] = torch.tensor([pair[key] for pair in pairs], dtype=torch.float32)
        if "reference" in pairs[0]:
            batch["reference"] = torch.tensor([pair["reference"][side] for side in (0, 1) for pair in pairs])
        return batch


class BlockSet(torch.utils.data.Dataset[Tensor]):
    """Packed blocks of N x T tokens, made into tensors once; a batch is one indexing."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.ids_NT = torch.tensor([block.input_ids for block in blocks], dtype=torch.long)
        self.documents_NT = torch.tensor([block.document_ids for block in blocks], dtype=torch.long)

    def __len__(self) -> int:
        return len(self.ids_NT)

    def __getitem__(self, row: int) -> int:
        return row


class BlockCollator:
    """Row numbers of a `BlockSet` to `input_ids` and `targets` (B, T): the next token of the block.

    isolate: no attention and no prediction across a document's end. Then there are also `position_ids` (B, T), starting
    anew with each document, and a boolean `attention_mask` (B, 1, T, T), block-diagonal and causal.
    """

    def __init__(self, blocks: BlockSet, *, isolate: bool) -> None:
        self.blocks, self.isolate = blocks, isolate

    def __call__(self, rows: Sequence[int]) -> Batch:
        ids_BT = self.blocks.ids_NT[torch.tensor(rows)]
        targets_BT = torch.full_like(ids_BT, IGNORED)
        targets_BT[:, :-1] = ids_BT[:, 1:]
        batch = {"input_ids": ids_BT, "targets": targets_BT}
        return batch | self._isolated(rows, targets_BT) if self.isolate else batch

    def _isolated(self, rows: Sequence[int], targets_BT: Tensor) -> Batch:
        documents_BT = self.blocks.documents_NT[torch.tensor(rows)]
        ends_BT = documents_BT[:, :-1] != documents_BT[:, 1:]
        targets_BT[:, :-1][ends_BT] = IGNORED
        places_T = torch.arange(documents_BT.shape[1])
        starts_BT = torch.zeros_like(documents_BT)
        starts_BT[:, 1:] = torch.where(ends_BT, places_T[1:], 0)
        same_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
        causal_TT = places_T[:, None] >= places_T[None, :]
        hidden_BTT = ~(same_BTT & causal_TT)
        return {
            "position_ids": places_T - starts_BT.cummax(dim=1).values,
            # Added to the scores, since plain attention adds what it is given; a mask of booleans is for SDPA alone.
            "attention_mask": torch.zeros(hidden_BTT.shape).masked_fill(hidden_BTT, LOWEST)[:, None],
        }
