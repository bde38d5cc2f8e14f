"""Formatted instances (survey arXiv:2303.18223, 5.1.1): rows of tasks as conversations.

Which template writes a row, behind which solved rows and with its choices in which order, is a function of
(seed, row, epoch): in another epoch the same row may be asked in other words. All epochs are rendered before training,
so a resumed run has nothing to draw again.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from hashlib import blake2b
from itertools import islice
from os.path import realpath
from pathlib import Path
from typing import TypeVar

import numpy as np

from aligner.data.costs import RowCost
from aligner.data.mix import Mix, Places, Values
from aligner.data.mixture import group_of
from aligner.data.readers import SourceRows
from aligner.data.readers.tasks.read import check_names
from aligner.data.readers.tasks.task import gravest, spoken, written_by
from aligner.data.readers.tasks.template import Luck, Rendering, TaskTemplate, Trials, Unfit, in_random_order
from aligner.data.rows import Conversation, Example, Row, Turn

MAX_RENDERED = (
    300_000  # readings of tasks' rows rendered ahead; epochs beyond them begin again with the first
)
MAX_TRIES = 1000  # rows looked at to find those to be shown solved: a template may fit few
LUCK_BYTES = 8

T = TypeVar("T")
Judge = Callable[[Row], str | None]
Epochs = Callable[[int], int]  # rows an epoch -> how many epochs are begun
Written = tuple[TaskTemplate, Rendering]
Line = tuple[str, int]  # of a table: its file, links followed, and where in it


def one_epoch(rows: int) -> int:
    """A look at the first epoch alone."""
    return 1


class Renderer:
    """Renders the rows of tasks.

    A text that a held-out row has, too, is not written, nor one that `judge` has a reason against: another template is
    taken (`other_template` counts them). Solved rows are shown in the same template, from the training rows of the
    same task alone, none of them equal to the row or to each other; where there are too few it is `fewer_shots`. No two
    tasks share a name (see `check_names`), so pools are by name.
    """

    def __init__(self, judge: Judge, *, seed: int) -> None:
        self.judge, self.seed = judge, seed
        self.trials = Trials()
        self.withheld: set[int] = set()
        self.tables: set[Line] = set()
        self.pools: dict[str, list[tuple[int, Example]]] = {}
        self.real_path = cache(realpath)  # of a table: it may be reached by several spellings

    def reason_against(self, row: Row) -> str | None:
        """The reason to drop a row of a task: none of its templates makes a text of it that may be written."""
        if not isinstance(row, Example):
            return None
        reasons = []
        for _, found in self._tried(row, 0, held=False):
            if isinstance(found, Rendering):
                return None
            reasons.append(found.reason)
        return gravest(reasons)

    def withhold(self, holdout: Sequence[SourceRows], sources: Sequence[SourceRows]) -> None:
        """From now on write no text that a held-out row has in any of its templates; rows without others go.

        So do rows of other sources that have such a text, and those of the same line of a table under other templates.
        `DataError` where tasks share a name.
        """
        check_names(_task_paths(sources), _task_paths(holdout))
        for row in (row for source in holdout for row in source.rows):
            self.withheld.update(map(group_of, _texts(row)))
            if isinstance(row, Example):
                self.tables.add(self._line(row))
        for source in sources if self.withheld else ():
            if self.tables or source.of_tasks:
                source.keep(self._withheld_reason)

    def _withheld_reason(self, row: Row) -> str | None:
        if isinstance(row, Example):
            return "in_holdout" if self._line(row) in self.tables else self.reason_against(row)
        return "in_holdout" if self.tables and group_of(row) in self.withheld else None

    def show_solved(self, sources: Sequence[SourceRows]) -> None:
        """From now on the rows of tasks in these sources, those to be trained on, may be shown solved."""
        for row in (row for source in sources if source.of_tasks for row in source.rows):
            if isinstance(row, Example):
                self.pools.setdefault(row.task.name, []).append((group_of(row), row))

    def written(self, source: SourceRows, row: Row, *, held: bool = False) -> Row:
        """A row of a source, one of a task rendered for the first epoch."""
        return self.conversation(row, source, 0, held) if isinstance(row, Example) else row

    def conversation(self, row: Example, source: SourceRows, epoch: int, held: bool = False) -> Conversation:
        """A row of a task, rendered for this epoch."""
        template, own = self._first(row, source, epoch, held)
        few, most = row.task.shots
        wanted = few + self._luck(row, "shots", epoch)(0) % (most - few + 1)
        shown = list(islice(self._solved(row, template, epoch), wanted))
        if len(shown) < wanted and epoch == 0:  # rows are counted, not readings
            source.noted["fewer_shots"] += 1
        prompt = "\n\n".join([*(f"{each.input}\n{each.target}" for each in shown), own.input])
        turns = (Turn("user", prompt), Turn("assistant", own.target))
        return Conversation(row.origin, turns, row.family, template.label, len(shown))

    def _first(self, row: Example, source: SourceRows, epoch: int, held: bool) -> Written:
        """The first template that fits; where none does any more (for an order of choices), the first epoch's."""
        for number, (template, found) in enumerate(self._tried(row, epoch, held)):
            if isinstance(found, Rendering):
                if number and epoch == 0:
                    source.noted["other_template"] += 1
                return template, found
        assert epoch > 0, "rows that no template fits were dropped"
        return self._first(row, source, 0, held)

    def _tried(
        self, row: Example, epoch: int, held: bool
    ) -> Iterator[tuple[TaskTemplate, Rendering | Unfit]]:
        """The templates in the order drawn for (row, epoch), with what each makes of the row."""
        reasons = self._luck(row, "rationale", epoch)(0) < row.task.rationale * 2 ** (8 * LUCK_BYTES)
        kinds = (row.task.templates, row.task.rationales)
        for kind in reversed(kinds) if reasons else kinds:
            for number in in_random_order(len(kind), self._luck(row, "template", epoch)):
                found = kind[number].render(row.fields, row.origin, self._luck(row, "choices", epoch))
                self.trials.note(kind[number], row.origin, found)
                yield kind[number], self._judged(row, kind[number], found, held)

    def _judged(
        self, row: Example, template: TaskTemplate, found: Rendering | Unfit, held: bool
    ) -> Rendering | Unfit:
        """The rendering, where it may be written: a held-out text may not, in whatever order its choices stand."""
        if isinstance(found, Unfit):
            return found
        text = spoken(row, found)
        if reason := self.judge(text):
            return Unfit(reason)
        if self.withheld and not held:
            texts = [text, *(written_by(row, [template]) if template.shuffles else ())]
            if any(group_of(each) in self.withheld for each in texts):
                return Unfit("in_holdout")
        return found

    def _solved(self, row: Example, template: TaskTemplate, epoch: int) -> Iterator[Rendering]:
        """Other training rows of the task in random order, as the template writes them."""
        pool = self.pools.get(row.task.name, [])
        seen: set[int | Line] = {group_of(row), self._line(row)}
        order = in_random_order(len(pool), self._luck(row, "solved", epoch))
        for key, other in (pool[number] for number in islice(order, MAX_TRIES)):
            line = self._line(other)  # another source may have the row with other fields, so with another key
            if key in seen or line in seen:
                continue
            seen.add(key)
            found = template.render(other.fields, other.origin, self._luck(other, "choices", epoch))
            if isinstance(judged := self._judged(other, template, found, held=False), Rendering):
                seen.add(line)
                yield judged

    def _line(self, row: Example) -> Line:
        return self.real_path(row.origin.path), row.origin.line

    def _luck(self, row: Example, purpose: str, epoch: int) -> Luck:
        key = f"{self.seed}|{row.digest}|{purpose} {epoch}"
        return lambda draw: int.from_bytes(blake2b(f"{key} {draw}".encode(), digest_size=LUCK_BYTES).digest())


def later_epochs(
    order: Places,
    mix: Mix,
    sources: Sequence[SourceRows],
    renderer: Renderer,
    convert: Callable[[list[Row]], list[list[T]]],
    cost: Callable[[T], RowCost],
    values: Values[T],
    epochs: Epochs,
) -> tuple[Places, Mix]:
    """The places of the training rows and, behind them, of those of tasks as each later epoch has them; and their mix.

    Only what an epoch reads is rendered for it. epochs: how many are begun with so many rows an epoch.
    """
    owners = list(zip(mix.sources, mix.numbers, strict=True)) if any(s.of_tasks for s in sources) else []
    examples = sum(_example(sources, *owner) is not None for owner in owners)
    added, rendered = list[tuple[int, int]](), list[dict[int, int]]()
    for epoch in range(1, epochs(mix.rows_per_epoch) if examples else 1):
        read = dict.fromkeys(owners[place] for place in mix.epoch(epoch))
        anew = [(owner, row) for owner in read if (row := _example(sources, *owner))]
        if examples + len(added) + len(anew) > MAX_RENDERED:
            break
        found = {owner: len(owners) + len(added) + i for i, (owner, _) in enumerate(anew)}
        for (value,) in convert(
            [renderer.conversation(row, sources[owner[0]], epoch) for owner, row in anew]
        ):
            values.append(value, cost(value))
        added += found
        rendered.append({place: found[owner] for place, owner in enumerate(owners) if owner in found})
    if not examples:
        return order, mix
    every = np.concatenate([order, np.arange(len(added)) + len(values.costs) - len(added)])
    given = array("i", [*mix.sources, *(source for source, _ in added)])
    numbers = array("q", [*mix.numbers, *(number for _, number in added)])
    return every, Mix(given, numbers, values.costs.picked(every), mix.draws, rendered, len(added))


def _example(sources: Sequence[SourceRows], source: int, number: int) -> Example | None:
    """The row of a task that a source's value was made of; each of them is made into one."""
    row = sources[source].rows[number] if sources[source].of_tasks else None
    return row if isinstance(row, Example) else None


def _task_paths(sources: Sequence[SourceRows]) -> Iterable[Path]:
    rows = (row for source in sources if source.of_tasks for row in source.rows)
    return dict.fromkeys(row.task.path for row in rows if isinstance(row, Example))


def _texts(row: Row) -> Sequence[Row]:
    """A held-out row as it may be written: itself, or one conversation for each template of its task."""
    return written_by(row, row.task.all_templates) if isinstance(row, Example) else [row]
