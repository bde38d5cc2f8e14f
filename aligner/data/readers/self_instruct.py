"""Format `self_instruct`: {"instruction", "instances": [{"input", "output"}]} rows (arXiv:2212.10560).

"is_classification", if it is there, says whether the right answers are few labels.
"""

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
    said = record.value.get("is_classification") is not None
    labels = record.flag("is_classification") if said else None
    for instance in instances:
        given, answer = instance.text("input", default=""), instance.text("output")
        yield instruction_row(record.origin, instruction, given, answer, family, classification=labels)
