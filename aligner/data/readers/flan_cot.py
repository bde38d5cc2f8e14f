"""Format `flan_cot`: question, answer, rationale; the tables of FLAN's CoT (Chung et al. 2022, arXiv:2210.11416)."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.questions import answered, worked
from aligner.data.readers.records import Record
from aligner.data.readers.tables import Columns
from aligner.data.rows import Conversation, Dropped

# Questions are sentences; a name of a column is one word.
COLUMNS = Columns(
    ("question", "answer", "rationale"), lambda cells: len(cells) == 3 and " " in cells[0].strip()
)


def read_flan_cot(record: Record) -> Iterator[Conversation | Dropped]:
    r"""One conversation a row: the question → the rationale and a last line with the answer.

    FLAN's own tables, which have no header, write line ends out ("\n"); they are read as such there, and nowhere
    else ("\nabla"). A row without an answer is `empty_answer`, one without a rationale `empty_rationale`.
    """
    texts = [record.text(key) for key in COLUMNS.names]
    if record.cells == "unnamed":
        texts = [text.replace("\\n", "\n") for text in texts]
    question, answer, rationale = (text.strip() for text in texts)
    if answer and not rationale:
        yield Dropped(record.origin, "empty_rationale")
    else:
        text = worked(rationale, answer) if answer else ""
        yield answered(record.origin, question, text, record.text("family", default="flan_cot"))
