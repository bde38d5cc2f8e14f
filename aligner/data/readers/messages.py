"""Format `messages`: {"messages": [{"role", "content"}, ...]} rows, as chat models are given them."""

from __future__ import annotations

from collections.abc import Iterator

from aligner.data.readers.records import Record, fault, read_turn
from aligner.data.readers.tool_calls import about_tools, in_order, tool_call, tools_text, with_tools
from aligner.data.rows import Conversation, Dropped, Origin, Turn


def read_messages(record: Record) -> Iterator[Conversation | Dropped]:
    """One conversation a row, with "tools" and calls of them as OpenAI and transformers write them.

    Dropped, by name: `empty_turn` (a turn without text), `tool_calls` (tools or calls that cannot be read), `no_prompt`
    (the assistant speaks first), `roles_out_of_order` (user and assistant do not take turns).
    """
    tools = tools_text(record.value.get("tools"))
    speaks = any(about_tools(message.value) for message in record.records("messages"))
    turns = _turns_with_tools(record, tools) if tools or speaks else record.turns("messages")
    if tools is None or turns is None:
        yield Dropped(record.origin, "tool_calls")
    elif (tools or speaks) and not in_order(turns):
        yield Dropped(record.origin, "roles_out_of_order")
    else:
        yield conversation_row(record.origin, turns, record.text("family", default=""))


def _turns_with_tools(record: Record, tools: str | None) -> tuple[Turn, ...] | None:
    """The row's turns, or None where a call cannot be read or a result is not that of the call in its place."""
    turns: list[Turn] = []
    called: list[object] = []  # ids of the calls whose results are still to come
    for message in record.records("messages"):
        given = message.value.get("tool_calls")
        if given and message.text("role") == "assistant":
            calls = given if isinstance(given, list) else [given]
            called = [call.get("id") for call in calls if isinstance(call, dict)]
            known = tuple(call for call in map(tool_call, calls) if call)
            if len(known) < len(calls):
                return None
            turns.append(Turn("assistant", message.text("content", default="").strip(), known))
        elif message.value.get("role") == "tool":
            asked, result = called.pop(0) if called else None, message.value.get("tool_call_id")
            if None not in (asked, result) and asked != result:
                return None
            turns.append(Turn("tool", message.text("content").strip()))
        elif about_tools(message.value):  # the older "function" of OpenAI
            return None
        else:
            turns.append(read_turn(message))
    return with_tools(tuple(turns), tools or "")


def conversation_row(origin: Origin, turns: tuple[Turn, ...], family: str) -> Conversation | Dropped:
    """Turns as a conversation; a system turn may only stand first.

    Dropped: `empty_turn` where one has no text, `no_prompt` where the assistant speaks first, `roles_out_of_order`
    where user and assistant do not take turns.
    """
    if any(turn.role == "system" for turn in turns[1:]):
        raise fault(origin, "a system turn after the first turn", "put the system turn first, or delete it")
    if any(turn.empty for turn in turns):
        return Dropped(origin, "empty_turn")
    if not in_order(turns):
        first = next((turn.role for turn in turns if turn.role != "system"), "assistant")
        return Dropped(origin, "no_prompt" if first == "assistant" else "roles_out_of_order")
    return Conversation(origin, turns, family)
