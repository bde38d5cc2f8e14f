"""Prompts as ids, on disk, with the rows that they were made of."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping

from aligner.data.costs import RowCost
from aligner.data.row_store import Numbers, RowStore
from aligner.data.rows import Origin, Prompt, ToolCall, Turn
from aligner.data.tokens import PromptRow

NUMBER_BYTES = 4


class PromptStore(RowStore[PromptRow]):
    """Prompts: how many ids, the ids, then the row as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self._golds: list[Mapping[str, object]] = []  # that JSON does not hold, such as a day in a table

    def packed(self, row: PromptRow) -> tuple[str, array[int]]:
        """The family, and the numbers."""
        prompt = row.prompt
        turns = [
            (turn.role, turn.content, [(call.name, call.arguments) for call in turn.tool_calls], turn.tools)
            for turn in prompt.turns
        ]
        gold = prompt.gold if _in_json(prompt.gold) else self._aside(prompt.gold)
        told = json.dumps([prompt.origin.path, prompt.origin.line, turns, gold]).encode()
        numbers = array("i", [len(row.input_ids), *row.input_ids])
        numbers.frombytes(told + b" " * (-len(told) % NUMBER_BYTES))
        return prompt.family, numbers

    def _aside(self, gold: Mapping[str, object]) -> int:
        """Keep it in memory; its number there."""
        self._golds.append(gold)
        return len(self._golds) - 1

    def unpacked(self, name: str, numbers: Numbers, cost: RowCost) -> PromptRow:
        """The prompt that was packed so."""
        end = 1 + int(numbers[0])
        path, line, turns, gold = json.loads(numbers[end:].tobytes())
        asked = tuple(
            Turn(role, content, tuple(ToolCall(*call) for call in calls), tools)
            for role, content, calls, tools in turns
        )
        known = self._golds[gold] if isinstance(gold, int) else gold
        return PromptRow(
            numbers[1:end].tolist(), Prompt(Origin(path, line), asked, name, known), cost.prompt_cut
        )

    @property
    def whole(self) -> bool:
        """Whether the numbers say all of every prompt, so that they can be kept."""
        return not self._golds


def _in_json(value: Mapping[str, object]) -> bool:
    """Whether JSON gives the value back as it is."""
    try:
        return not value or json.loads(json.dumps(value)) == value
    except (TypeError, ValueError, RecursionError):
        return False
