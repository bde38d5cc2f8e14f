"""Tools in chats: what a row gives its model, what the model calls, and what comes back.

Whatever cannot be told in canonical turns is None here, and its row is dropped as `tool_calls`: half a call, or one
flattened to prose, would teach a model to make them up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from aligner.data.rows import ToolCall, Turn


def has_tools(row: Mapping[str, object]) -> bool:
    """Whether a row gives tools, or a message in any of its lists is about them.

    A format that reads no tools drops such a row as `tool_calls`.
    """
    entries = (entry for value in row.values() if isinstance(value, list) for entry in value)
    said = any(about_tools(entry) for entry in entries if isinstance(entry, Mapping))
    return said or tools_text(row.get("tools")) != ""


def about_tools(message: Mapping[str, object]) -> bool:
    """Whether a message calls a tool or is a tool's result."""
    calls = message.get("tool_calls") or message.get("function_call")
    return bool(calls) or message.get("role") in ("tool", "function")


def tools_text(tools: object) -> str | None:
    """A row's tools as JSON, in the shape that chat templates take; "" where there are none.

    `tools` is a list of {"name", "description", "parameters"} or of {"type": "function", "function": {...}}, or such
    a list written out as a string.
    """
    given = (_parsed(tools) if tools.strip() else []) if isinstance(tools, str) else tools or []
    if not isinstance(given, list) or any(_name(_function(tool)) is None for tool in given):
        return None
    return _dumped([{"type": "function", "function": _function(tool)} for tool in given]) if given else ""


def tool_call(call: object) -> ToolCall | None:
    """One call: {"name", "arguments"}, maybe under "function"; it and its arguments may be written out as strings."""
    call = _function(_parsed(call) if isinstance(call, str) else call)
    name = _name(call)
    if name is None or not isinstance(call, Mapping):
        return None
    arguments = call.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = _parsed(arguments)
    text = _dumped(arguments) if isinstance(arguments, Mapping) else None
    return None if text is None else ToolCall(name, text)


def with_tools(turns: tuple[Turn, ...], tools: str) -> tuple[Turn, ...]:
    """The turns, the system's own or an empty one before them giving the tools."""
    if not tools:
        return turns
    if turns and turns[0].role == "system":
        return (replace(turns[0], tools=tools), *turns[1:])
    return (Turn("system", "", tools=tools), *turns)


def in_order(turns: tuple[Turn, ...]) -> bool:
    """Whether user and assistant take turns, the user first, after at most one system turn.

    Calls of tools and their results may stand between a question and its answer, each call with its result.
    """
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    open_calls, expected = 0, ("user",)
    for turn in spoken:
        if turn.role not in expected:
            return False
        open_calls += len(turn.tool_calls) - (turn.role == "tool")
        if turn.role == "assistant" and not turn.tool_calls:
            expected = ("user",)
        else:
            expected = ("tool",) if open_calls else ("assistant",)
    return bool(spoken)


def _function(value: object) -> object:
    return value["function"] if isinstance(value, Mapping) and "function" in value else value


def _name(value: object) -> str | None:
    name = value.get("name") if isinstance(value, Mapping) else None
    return name if isinstance(name, str) and name.strip() and _writable(name) else None


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _dumped(value: object) -> str | None:
    """As JSON in which every character stands for itself, so that control tokens can be looked for in it."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # a table may hold dates and bytes
        return None
    return text if _writable(text) else None


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
