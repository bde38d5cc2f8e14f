"""Format `sharegpt`: {"conversations": [{"from", "value"}, ...]} rows, as in the data of Vicuna."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from aligner.data.readers.messages import conversation_row
from aligner.data.readers.records import Record, fault
from aligner.data.readers.tool_calls import in_order, tool_call, tools_text, with_tools
from aligner.data.rows import Conversation, Dropped, Turn

SPEAKERS: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
}
CALL, RESULTS = "function_call", ("observation", "tool")


def read_sharegpt(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation a row, after the text at "system" where there is one; "tools" as in LLaMA-Factory.

    Dropped, by name: `tool_calls` (tools or calls that cannot be read), `roles_out_of_order` (human and model do not
    take turns, the human first), `empty_turn`.
    """
    turns = sharegpt_turns(record)
    if turns is None:
        yield Dropped(record.origin, "tool_calls")
    elif not in_order(turns):
        yield Dropped(record.origin, "roles_out_of_order")
    else:
        yield conversation_row(record.origin, turns, record.text("family", default=""))


def sharegpt_turns(record: Record) -> tuple[Turn, ...] | None:
    """The turns of "conversations" after the text at "system"; None where tools or calls cannot be read."""
    messages = record.records("conversations")
    if not messages:
        raise fault(record.origin, '"conversations" is empty', "give at least one message, or delete the row")
    system = record.text("system", default="").strip()
    said = [sharegpt_turn(message) for message in messages]
    turns = tuple(turn for turn in said if turn)
    tools = tools_text(record.value.get("tools"))
    if tools is None or len(turns) < len(said):
        return None
    return with_tools((Turn("system", system), *turns) if system else turns, tools)


def sharegpt_turn(message: Record) -> Turn | None:
    """One {"from", "value"} turn, or None where it is a call that cannot be read."""
    speaker, text = message.text("from"), message.text("value").strip()
    if speaker == CALL:
        call = tool_call(text)
        return Turn("assistant", "", (call,)) if call else None
    if speaker in RESULTS:
        return Turn("tool", text)
    if speaker not in SPEAKERS:
        raise fault(message.origin, f'unknown speaker "{speaker}"', f"valid: {', '.join(SPEAKERS)}")
    return Turn(SPEAKERS[speaker], text)
