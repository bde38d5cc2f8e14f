"""A question to try a published model with: one that the run was asked, or one that its data begin with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from aligner.data.readers import read_source
from aligner.data.rows import Conversation, Pair, Row, row_turns
from aligner.errors import AlignerError
from aligner.recipe.load import load_recipe
from aligner.run.lines import JsonLines, JsonRow

LONGEST = 200  # characters, so that the card stays readable
ROWS = 50  # rows of a source that are looked at for one so short


class Example(NamedTuple):
    """A question, and an answer to it for models that score one."""

    question: str
    answer: str


ANY = Example("What can you do?", "I answer questions.")


def example_of(run_path: Path) -> Example:
    """The run's best rewarded newest sample, or the first row of its data; of either one that is short, or `ANY`."""
    found = (example for source in (_sampled, _in_data) for example in source(run_path))
    try:
        return next(filter(_is_short, found), ANY)
    except AlignerError:  # the data, or what else the recipe names, is not here any more
        return ANY


def _is_short(example: Example) -> bool:
    return bool(example.question) and max(map(len, example)) <= LONGEST and "```" not in "".join(example)


def _sampled(run_path: Path) -> Iterator[Example]:
    rows = [row for row in JsonLines(run_path / "samples.jsonl").rows() if isinstance(row.get("prompt"), str)]
    newest = [row for row in rows if row.get("step") == rows[-1].get("step")]
    for row in sorted(newest, key=_reward, reverse=True):
        yield Example(row["prompt"], str(row.get("response", "")))


def _reward(row: JsonRow) -> float:
    return float(row.get("gold_reward", row.get("proxy_reward", 0.0)))


def _in_data(run_path: Path) -> Iterator[Example]:
    """Rows of one question."""
    data = getattr(load_recipe(run_path / "recipe.yaml").recipe, "data", None)
    for spec in data.train if data else ():
        rows = read_source(spec.model_copy(update={"take": ROWS}), None).rows
        yield from (found for row in islice(rows, ROWS) if (found := _of_row(row)))


def _of_row(row: Row) -> Example | None:
    turns = row_turns(row)
    if not turns or turns[0].role != "user":
        return None
    if isinstance(row, Pair):
        return Example(turns[0].content, row.chosen) if len(turns) == 1 else None
    answer = turns[1].content if isinstance(row, Conversation) and len(turns) > 1 else ""
    return Example(turns[0].content, answer)
