"""Format `self_instruct`: {"instruction", "instances": [{"input", "output"}]} rows (arXiv:2212.10560)."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.alpaca import instruction_row
from aligner.data.readers.records import Record, fault
from aligner.data.rows import Conversation, Dropped


def read_self_instruct(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation an instance."""
    instances = record.records("instances")
    if not instances:
        raise fault(
            record.origin, '"instances" is empty', "give at least one {input, output}, or delete the row"
        )
    instruction = record.text("instruction")
    family = record.text("family", default="self_instruct")
    for instance in instances:
        yield instruction_row(
            record.origin, instruction, instance.text("input", default=""), instance.text("output"), family
        )
