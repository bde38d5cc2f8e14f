"""Format `kto`: single answers, each judged by a "label": true for desirable (KTO, arXiv:2402.01306)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from aligner.data.readers.pairs import pair_row
from aligner.data.readers.records import Record
from aligner.data.readers.tool_calls import has_tools
from aligner.data.rows import Dropped, Origin, Pair, Turn
from aligner.errors import DataError


class _Answer(NamedTuple):
    """One judged answer."""

    origin: Origin
    prompt: tuple[Turn, ...]
    text: str
    good: bool


@dataclass
class _Judged:
    """The answers to one prompt, by label."""

    good: list[tuple[Origin, str]] = field(default_factory=list)
    bad: list[tuple[Origin, str]] = field(default_factory=list)


def read_kto(records: Iterable[Record | DataError]) -> Iterator[Pair | Dropped | DataError]:
    """The judgements of one file as pairs: each desirable answer against each undesirable one to the same prompt.

    A row is {"messages", "label"}, the last message the assistant's, or TRL's {"prompt", "completion", "label"}.
    Our reward models compare answers to one prompt, so a judgement without an opposite to its prompt says nothing
    to them: it is dropped as `no_opposite`. A pair's origin is the desirable answer's row. Further drops:
    `no_answer` (the last message is not the assistant's), `no_prompt` (there is no other), `roles_out_of_order`
    (the one before it is not the user's), `tool_calls` (the row has tools), and those of `pairs`. Of a bad row its
    error is given, so that the others can be read.
    """
    by_prompt: dict[tuple[Turn, ...], _Judged] = {}
    for record in records:
        answer = record if isinstance(record, DataError) else _answer(record)
        if not isinstance(answer, _Answer):
            yield answer
            continue
        judged = by_prompt.setdefault(answer.prompt, _Judged())
        (judged.good if answer.good else judged.bad).append((answer.origin, answer.text))
    for prompt, judged in by_prompt.items():
        if not judged.good or not judged.bad:
            yield from (Dropped(origin, "no_opposite") for origin, _ in judged.good + judged.bad)
        for (origin, chosen), (_, rejected) in product(judged.good, judged.bad):
            yield pair_row(origin, prompt, chosen, rejected, margin=None, kind="")


def _answer(record: Record) -> _Answer | Dropped | DataError:
    if has_tools(record.value):
        return Dropped(record.origin, "tool_calls")
    try:
        dialogue, label = _dialogue(record), record.flag("label")
    except DataError as error:
        return error
    if reason := _reason_against(dialogue):
        return Dropped(record.origin, reason)
    return _Answer(record.origin, dialogue[:-1], dialogue[-1].content, label)


def _dialogue(record: Record) -> tuple[Turn, ...]:
    if "messages" in record.value:
        return record.turns("messages")
    if isinstance(record.value.get("completion"), list):
        return record.prompt() + record.turns("completion")
    return (*record.prompt(), Turn("assistant", record.text("completion").strip()))


def _reason_against(dialogue: tuple[Turn, ...]) -> str | None:
    if dialogue[-1].role != "assistant":
        return "no_answer"
    if len(dialogue) == 1:
        return "no_prompt"
    return None if dialogue[-2].role == "user" else "roles_out_of_order"
