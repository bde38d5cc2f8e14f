"""Format `completions`: {"prompt", "completion"} rows, as P3's (Sanh et al. 2022, arXiv:2110.08207) and TRL's."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.messages import conversation_row
from aligner.data.readers.records import Record, fault
from aligner.data.rows import Conversation, Dropped, Turn

END = (
    "<|endoftext|>"  # GPT's end token, written out at the end of many completions: the template ends answers
)


def read_completions(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation a row: prompt → completion (or "response"), each a string or messages.

    Empty completions are `empty_answer`, empty messages `empty_turn`.
    """
    key = "response" if "response" in record.value and "completion" not in record.value else "completion"
    prompt = record.prompt()
    answer = record.turns(key) if isinstance(record.value.get(key), list) else _answer(record.text(key))
    if answer[0].role != "assistant":
        what = f'"{key}" starts with a {answer[0].role} turn'
        raise fault(record.origin, what, "start it with an assistant turn")
    if not answer[-1].content:
        yield Dropped(record.origin, "empty_answer")
    else:
        yield conversation_row(record.origin, (*prompt, *answer), record.text("family", default=""))


def _answer(completion: str) -> tuple[Turn, ...]:
    return (Turn("assistant", completion.strip().removesuffix(END).strip()),)
