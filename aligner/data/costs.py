"""What rows take and give, as numbers: 20 bytes a row, however many there are."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
PROMPT_CUT, ANSWER_CUT, REWRITTEN = 1, 2, 4  # added up in one number


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
    """The costs of many rows in order, appended one by one, or those of a file; or of some of these, numbers shared."""

    WIDTH = 5  # whole numbers a row: tokens, supervised ones, what was cut, template, shots

    def __init__(
        self, numbers: array[int] | NDArray[np.int32] | None = None, templates: Iterable[str] = ()
    ) -> None:
        self.numbers: array[int] | NDArray[np.int32] = array("i") if numbers is None else numbers
        self.templates = {name: place for place, name in enumerate(templates)}
        self._names = list(self.templates)
        self._places: Places | None = None  # of the rows that are meant; None: all of them

    def append(self, cost: RowCost) -> None:
        """Put a row's cost behind the others."""
        if cost.template not in self.templates:
            self.templates[cost.template] = len(self._names)
            self._names.append(cost.template)
        cut = PROMPT_CUT * cost.prompt_cut + ANSWER_CUT * cost.answer_cut + REWRITTEN * cost.rewritten
        template = self.templates[cost.template]
        self.numbers.extend((cost.tokens, cost.supervised_tokens, cut, template, cost.shots))

    def picked(self, places: Places) -> Costs:
        """The costs of the rows at these places, in this order."""
        some = copy(self)
        some._places = places if self._places is None else self._places[places]
        return some

    @property
    def tokens(self) -> NDArray[np.int32]:
        """Ids of each row: (R,)."""
        return self._column(0)

    @property
    def supervised_tokens(self) -> NDArray[np.int32]:
        """Supervised ids of each row: (R,)."""
        return self._column(1)

    @property
    def of_tasks(self) -> Places:
        """Which of the rows a template of a task wrote."""
        return np.flatnonzero(self._column(3) != self.templates.get("", -1))

    def cut(self, how: int) -> NDArray[np.bool_]:
        """Whether each row is `PROMPT_CUT`, `ANSWER_CUT` or `REWRITTEN`: (R,)."""
        return (self._column(2) & how) > 0

    def _column(self, number: int) -> NDArray[np.int32]:
        """A copy: while an array looks at the numbers, none can be appended."""
        column = np.asarray(self.numbers).reshape(-1, self.WIDTH)[:, number]
        return column.copy() if self._places is None else column[self._places]

    def __len__(self) -> int:
        return len(self.numbers) // self.WIDTH if self._places is None else len(self._places)

    def __iter__(self) -> Iterator[RowCost]:
        return map(self._at, range(len(self)) if self._places is None else self._places.tolist())

    @overload
    def __getitem__(self, index: int) -> RowCost: ...
    @overload
    def __getitem__(self, index: slice) -> list[RowCost]: ...
    def __getitem__(self, index: int | slice) -> RowCost | list[RowCost]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self._at(place if self._places is None else int(self._places[place]))

    def _at(self, place: int) -> RowCost:
        start = place * self.WIDTH
        tokens, supervised, cut, template, shots = self.numbers[start : start + self.WIDTH].tolist()
        cuts = (bool(cut & how) for how in (PROMPT_CUT, ANSWER_CUT, REWRITTEN))
        return RowCost(tokens, supervised, *cuts, self._names[template], shots)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]
