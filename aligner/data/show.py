"""Rows as the model sees them, in a terminal: supervised tokens coloured, control tokens visible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from aligner.data.pieces import Piece, dropped_text, parts_of, shown_document, shown_row, visible
from aligner.data.plan import SourcePlan, template_rows
from aligner.data.report import DataReport
from aligner.data.rows import Document
from aligner.data.tokens import PairRow, PromptRow, TokenRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STYLES = {"learnt": "green", "rejected": "red", "": ""}
CONTROL = "reverse"


def show_rows(
    rows: Sequence[TokenRow | PairRow | PromptRow],
    tokenizer: PreTrainedTokenizerBase,
    *,
    part: str = "",
    console: Console | None = None,
) -> None:
    """Print rows: learnt (or chosen) tokens green, rejected ones red, control tokens reversed.

    `part`, where given, stands before each number.
    """
    console = console or Console()
    for number, row in enumerate(rows, start=1):
        shown = shown_row(row, tokenizer)
        console.rule(Text(visible(f"{part}{number}: {shown.title}")), align="left")
        for line in shown.lines:
            console.print(styled(line), soft_wrap=True)


def show_legend(*, console: Console | None = None) -> None:
    """Print what the colours of rows mean."""
    (console or Console()).print(
        Text.assemble(
            ("green", STYLES["learnt"]), " is learnt (or chosen), ", ("red", STYLES["rejected"]), " is rejected, ",
            ("reversed", CONTROL), " is a control token",
        )
    )  # fmt: skip


def show_documents(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerBase,
    *,
    part: str = "",
    console: Console | None = None,
) -> None:
    """Print documents as pretraining sees them: every token is learnt, control tokens are reversed.

    `part`, where given, stands before each number.
    """
    console = console or Console()
    for number, document in enumerate(documents, start=1):
        shown = shown_document(document, tokenizer)
        console.rule(Text(visible(f"{part}{number}: {shown.title}")), align="left")
        console.print(styled(shown.lines[0]), soft_wrap=True)


def show_dropped(report: DataReport, count: int, *, console: Console | None = None) -> None:
    """Print, for every source and reason, how many rows were dropped, and up to `count` of them with file and line.

    Rows that were changed are shown as they were when they were dropped, long ones by their beginning.
    """
    console = console or Console()
    for part, source in parts_of(report):
        total = sum(source.dropped.values())
        title = f"{part}: {source.path}, {total} of {source.rows_read} rows dropped"
        console.rule(Text(visible(title)), align="left")
        for reason, number in source.dropped.items():
            console.print(Text(f"{reason}: {number}", "bold"))
            for row in source.samples.get(reason, [])[:count]:
                place, text = visible(str(row.origin)), visible(dropped_text(row))
                line = Text.assemble("  ", (place, "cyan"), "  ", text)
                console.print(line, soft_wrap=True)


def show_templates(plans: Sequence[SourcePlan], *, console: Console | None = None) -> None:
    """Print how often each template of a task is used; nothing where there are no tasks."""
    console = console or Console()
    for row in template_rows(plans):
        name, said = visible(row.name), visible(f"{row.value}  {row.why}")
        console.print(Text.assemble((f"{name}: ", "bold"), said), soft_wrap=True)


def styled(line: Sequence[Piece]) -> Text:
    """Pieces as styled text, control characters visible."""
    text = Text()
    for piece in line:
        text.append(visible(piece.text), f"{STYLES[piece.fate]} {CONTROL if piece.control else ''}".strip())
    return text
