"""What a command would do, as rows and tables a person can read. `aligner check` prints it; nothing here computes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlanRow:
    """One number or choice of a stage, and why it is so."""

    name: str
    value: str
    why: str = ""


@dataclass(frozen=True)
class PlanTable:
    """Columns under names; the first is text, the others stand on the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def lines(self) -> list[str]:
        """The table as plain lines."""
        every = (self.columns, *self.rows)
        widths = [max(map(len, cells)) for cells in zip(*every, strict=True)]
        return ["  ".join(map(_aligned, row, widths, range(len(row)))).rstrip() for row in every]


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


StageParts = tuple[list[PlanRow], tuple[PlanTable, ...]]  # rows and tables of a stage that has no name yet


@dataclass(frozen=True)
class StagePlan:
    """What one stage would do: steps, tokens, memory, time, precision; and its sources, what was read and what is."""

    name: str
    rows: tuple[PlanRow, ...]
    tables: tuple[PlanTable, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a recipe would do, stage by stage."""

    stages: tuple[StagePlan, ...]


def epochs_text(value: float) -> str:
    """How often something is done, 1.50 or 0.004: two decimals, and two digits of what is less than a tenth."""
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"
