"""What a build refuses to hand on: a part without rows, too many answers without their end, forged control tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from aligner.data.costs import ANSWER_CUT, Costs
from aligner.data.readers import SourceRows
from aligner.data.rows import Document, Row, row_contents, row_turns
from aligner.data.templates import control_tokens, renders_tools
from aligner.errors import DataError, Problem
from aligner.recipe.data import DataSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_not_empty(sources: Sequence[SourceRows], part: str) -> None:
    """`DataError` where no source of a part has a row left; it names why, and the first row of each reason."""
    if not sources or any(source.rows for source in sources):
        return
    reasons = [f"{source.path}: {dict(source.dropped) or 'no rows'}{_such_as(source)}" for source in sources]
    raise DataError(
        Problem(part, f"no rows are left ({'; '.join(reasons)})", "add sources, or loosen what drops them")
    )


def _such_as(source: SourceRows) -> str:
    """The first row of each reason: where all are dropped there are no others to show."""
    firsts = [f"{reason} {rows[0].origin}" for reason, rows in source.samples.items()]
    return f", such as {', '.join(firsts)}" if firsts else ""


def check_cut_answers(costs: Costs, spec: DataSpec) -> None:
    """`DataError` where more answers lose their end than the recipe allows (`cut_answers`, a share of all rows)."""
    cut = int(costs.cut(ANSWER_CUT).sum())
    if cut > spec.cut_answers * len(costs):
        raise DataError(
            Problem(
                "data.max_length",
                f"{cut} of {len(costs)} rows would have their answer cut at {spec.max_length} tokens"
                f" (allowed: {spec.cut_answers:.1%})",
                "raise max_length, or raise cut_answers to train on answers without their end",
            )
        )


def refuse_forged(tokenizer: PreTrainedTokenizerBase) -> Callable[[Row], str | None]:
    """A judge against rows whose text contains a control token: its id must come from the template alone.

    And against rows with tools (`tool_calls`), where the template writes none. In plain documents control tokens are
    spelt out (see `documents_ids`), so they stay.
    """
    controls = control_tokens(tokenizer)
    knows_tools = cache(lambda: renders_tools(tokenizer))

    def reason_against(row: Row) -> str | None:
        if isinstance(row, Document) and not row.turns:
            return None
        if any(turn.about_tools for turn in row_turns(row)) and not knows_tools():
            return "tool_calls"
        forged = any(token in content for content in row_contents(row) for token in controls)
        return "control_token_in_text" if forged else None

    return reason_against
