"""Format `natural_instructions`: {"Definition", "Instances": [{"input", "output"}]} a file (arXiv:2204.07705)."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.alpaca import instruction_row
from aligner.data.readers.records import Record, fault
from aligner.data.rows import Conversation, Dropped


def read_natural_instructions(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation an instance: definition, blank line, input → the first of the right outputs.

    The family is the task's first category. The task's examples ("Positive Examples") are not read. An instance
    without an output, or with an empty one, is `empty_answer`.
    """
    definition = "\n".join(_one_or_more(record, "Definition"))
    if not definition.strip():
        raise fault(record.origin, '"Definition" is empty', "write the definition, or delete the file")
    categories = _one_or_more(record, "Categories") if "Categories" in record.value else []
    family = categories[0] if categories else "natural_instructions"
    for instance in record.records("Instances"):
        answer = next(iter(_one_or_more(instance, "output")), "")
        yield instruction_row(record.origin, definition, instance.text("input"), answer, family)


def _one_or_more(record: Record, key: str) -> list[str]:
    """The strings at `key`: a list of them, or (as in older task files) one."""
    return record.texts(key) if isinstance(record.value.get(key), list) else [record.text(key)]
