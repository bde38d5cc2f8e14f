"""Format `moss`: {"meta_instruction", "chat": {"turn_1": {"Human", "MOSS", ...}}} rows (Sun et al. 2024, MOSS)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from aligner.data.readers.messages import conversation_row
from aligner.data.readers.records import Record, fault
from aligner.data.rows import Conversation, Dropped, Turn

NOTHING = ("", "None")  # what stands for no command
_SPEAKER = re.compile(r"^<\|[^<>|]+\|>:")  # "<|Human|>: Hello<eoh>"
_END = re.compile(r"<eo[a-z]>$")


def read_moss(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation a row, the meta-instruction as its system turn, the markers taken off.

    Inner thoughts are not read. Rows in which MOSS runs commands are dropped as `tool_calls`, those with an empty
    turn as `empty_turn`.
    """
    system = record.text("meta_instruction", default="").strip()
    turns = [Turn("system", system)] if system else []
    chat = Record(record.origin, record.mapping("chat"))
    if not chat.value:
        raise fault(record.origin, '"chat" is empty', "give at least one turn, or delete the row")
    for number in range(1, len(chat.value) + 1):
        turn = Record(record.origin, chat.mapping(f"turn_{number}"))
        if any(_text(turn, key, default="") not in NOTHING for key in ("Commands", "Tool Responses")):
            yield Dropped(record.origin, "tool_calls")
            return
        turns += [Turn("user", _text(turn, "Human")), Turn("assistant", _text(turn, "MOSS"))]
    yield conversation_row(record.origin, tuple(turns), record.text("category", default=""))


def _text(turn: Record, key: str, *, default: str | None = None) -> str:
    """The text at `key` without the marker of its speaker and that of its end."""
    text = _SPEAKER.sub("", turn.text(key, default=default).strip(), count=1)
    return _END.sub("", text).strip()
