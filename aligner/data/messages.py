"""Turns as the messages that chat templates take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from aligner.data.rows import Turn

Message = dict[str, Any]


def as_messages(turns: Sequence[Turn]) -> list[Message]:
    """{"role", "content"} of each turn, tool calls and their results with ids that belong together.

    Ids have nine digits, which is what some templates ask for. A system turn that only gives tools is no message.
    """
    messages: list[Message] = []
    called: list[tuple[str, str]] = []  # (id, name) of the calls whose results are still to come
    count = 0
    for turn in turns:
        message: Message = {"role": turn.role, "content": turn.content}
        if turn.tool_calls:
            called = [(f"{count + i:09d}", call.name) for i, call in enumerate(turn.tool_calls)]
            count += len(called)
            message["tool_calls"] = [
                {
                    "id": id_,
                    "type": "function",
                    "function": {"name": name, "arguments": json.loads(call.arguments)},
                }
                for (id_, name), call in zip(called, turn.tool_calls, strict=True)
            ]
        if turn.role == "tool" and called:
            message["tool_call_id"], message["name"] = called.pop(0)
        if turn.content or not turn.tools:
            messages.append(message)
    return messages


def tools_of(turns: Sequence[Turn]) -> list[Message] | None:
    """The tools that a conversation gives its model, or None."""
    return json.loads(turns[0].tools) if turns and turns[0].tools else None
