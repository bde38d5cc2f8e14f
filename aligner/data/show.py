"""Rows as the model sees them: supervised tokens coloured, control tokens visible."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from aligner.data.plan import SourcePlan, template_rows
from aligner.data.report import DataReport
from aligner.data.rows import Document, Dropped, Row, row_text
from aligner.data.templates import control_tokens
from aligner.data.tokens import PairRow, PromptRow, TokenRow, document_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SUPERVISED, CONTROL, REJECTED = "green", "reverse", "red"
SHOWN_CHARS = 300  # of a dropped row


def show_rows(
    rows: Sequence[TokenRow | PairRow | PromptRow],
    tokenizer: PreTrainedTokenizerBase,
    *,
    console: Console | None = None,
) -> None:
    """Print rows: learnt (or chosen) tokens green, rejected ones red, control tokens reversed."""
    console = console or Console()
    console.print(
        Text.assemble(
            ("green", SUPERVISED), " is learnt (or chosen), ", ("red", REJECTED), " is rejected, ",
            ("reversed", CONTROL), " is a control token",
        )
    )  # fmt: skip
    for number, row in enumerate(rows, start=1):
        console.rule(f"{number}: {_title(row)}", align="left")
        for line in row_lines(row, tokenizer):
            console.print(line, soft_wrap=True)


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
        ids = document_ids(document, tokenizer)
        console.rule(f"{part}{number}: {document.origin}, {len(ids)} tokens", align="left")
        console.print(styled(ids, [""] * len(ids), tokenizer), soft_wrap=True)


def show_dropped(report: DataReport, count: int, *, console: Console | None = None) -> None:
    """Print, for every source and reason, how many rows were dropped, and up to `count` of them with file and line.

    Rows that were changed are shown as they were when they were dropped, long ones by their beginning.
    """
    console = console or Console()
    parts = (("train", report.train), ("curriculum", report.curriculum), ("holdout", report.holdout))
    for part, source in ((part, source) for part, sources in parts for source in sources):
        total = sum(source.dropped.values())
        console.rule(Text(f"{part}: {source.path}, {total} of {source.rows_read} rows dropped"), align="left")
        for reason, number in source.dropped.items():
            console.print(Text(f"{reason}: {number}", "bold"))
            for row in source.samples.get(reason, [])[:count]:
                console.print(_dropped_line(row), soft_wrap=True)


def show_templates(plans: Sequence[SourcePlan], *, console: Console | None = None) -> None:
    """Print how often each template of a task is used; nothing where there are no tasks."""
    console = console or Console()
    for row in template_rows(plans):
        console.print(Text.assemble((f"{row.name}: ", "bold"), f"{row.value}  {row.why}"), soft_wrap=True)


def _dropped_line(row: Row | Dropped) -> Text:
    """A dropped row on one line; of one that could not be read there is its place alone."""
    text = "" if isinstance(row, Dropped) else " ".join(row_text(row).split())
    cut = f"{text[:SHOWN_CHARS]}..." if len(text) > SHOWN_CHARS else text
    return Text.assemble("  ", (str(row.origin), "cyan"), "  ", cut)


def row_lines(row: TokenRow | PairRow | PromptRow, tokenizer: PreTrainedTokenizerBase) -> list[Text]:
    """A row as styled text: one for a conversation or prompt, two for a pair."""
    if isinstance(row, TokenRow):
        return [styled(row.input_ids, [SUPERVISED if counts else "" for counts in row.supervised], tokenizer)]
    if isinstance(row, PromptRow):
        return [styled(row.input_ids, [""] * len(row.input_ids), tokenizer)]
    prompt = [""] * row.prompt_length
    sides = ((row.chosen_ids, SUPERVISED), (row.rejected_ids, REJECTED))
    return [styled(ids, prompt + [colour] * (len(ids) - len(prompt)), tokenizer) for ids, colour in sides]


def styled(ids: Sequence[int], colours: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Text:
    """Ids as text, control tokens reversed; each run of one style is decoded whole (a letter may be several ids)."""
    controls = {tokenizer.convert_tokens_to_ids(token) for token in control_tokens(tokenizer)}
    styles = [
        f"{colour} {CONTROL}".strip() if token in controls else colour
        for token, colour in zip(ids, colours, strict=True)
    ]
    text = Text()
    for style, run in groupby(zip(ids, styles, strict=True), key=lambda entry: entry[1]):
        tokens = [token for token, _ in run]
        shown = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        text.append(str(shown), style)
    return text


def _title(row: TokenRow | PairRow | PromptRow) -> str:
    if isinstance(row, PairRow):
        return f"{row.kind or 'pair'}, {len(row.chosen_ids)} and {len(row.rejected_ids)} tokens"
    if isinstance(row, PromptRow):
        return f"{row.prompt.family or 'prompt'} ({row.prompt.origin}), {len(row.input_ids)} tokens"
    written = f" ({row.template}, {row.shots} shots)" if row.template else ""
    lengths = f"{len(row.input_ids)} tokens, {sum(row.supervised)} supervised"
    return f"{row.family or 'conversation'}{written}, {lengths}"
