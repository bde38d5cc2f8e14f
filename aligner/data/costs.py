"""What rows take and give, as numbers: 20 bytes a row, however many there are."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RowCost:
    """What one row takes and gives: ids, supervised ids, and whether it was cut to fit or is not learnt whole.

    Of a task's row: which template wrote it ("task/template"), after how many solved ones.
    """

    tokens: int = 0
    supervised_tokens: int = 0
    prompt_cut: bool = False
    answer_cut: bool = False
    rewritten: bool = False
    template: str = ""
    shots: int = 0


class Costs(Sequence[RowCost]):
    """The costs of many rows in order, appended one by one."""

    WIDTH = 5  # whole numbers a row: tokens, supervised ones, what was cut, template, shots

    def __init__(self, numbers: array[int] | None = None, templates: Iterable[str] = ()) -> None:
        self.numbers = array("i") if numbers is None else numbers
        self.templates = {name: place for place, name in enumerate(templates)}
        self._names = list(self.templates)

    def append(self, cost: RowCost) -> None:
        """Put a row's cost behind the others."""
        if cost.template not in self.templates:
            self.templates[cost.template] = len(self._names)
            self._names.append(cost.template)
        cut = cost.prompt_cut + 2 * cost.answer_cut + 4 * cost.rewritten
        template = self.templates[cost.template]
        self.numbers.extend((cost.tokens, cost.supervised_tokens, cut, template, cost.shots))

    def picked(self, places: NDArray[np.int64]) -> Costs:
        """The costs of the rows at these places, in this order."""
        rows = np.asarray(self.numbers).reshape(-1, self.WIDTH)
        return Costs(array("i", rows[places].tobytes()), self._names)

    def __len__(self) -> int:
        return len(self.numbers) // self.WIDTH

    def __iter__(self) -> Iterator[RowCost]:
        width = self.WIDTH
        return (self._cost(*self.numbers[at : at + width]) for at in range(0, len(self.numbers), width))

    @overload
    def __getitem__(self, index: int) -> RowCost: ...
    @overload
    def __getitem__(self, index: slice) -> list[RowCost]: ...
    def __getitem__(self, index: int | slice) -> RowCost | list[RowCost]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        at = range(len(self))[index] * self.WIDTH
        return self._cost(*self.numbers[at : at + self.WIDTH])

    def _cost(self, tokens: int, supervised: int, cut: int, template: int, shots: int) -> RowCost:
        cuts = bool(cut & 1), bool(cut & 2), bool(cut & 4)
        return RowCost(tokens, supervised, *cuts, self._names[template], shots)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]
