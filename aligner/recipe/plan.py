"""What a command would do, as rows a person can read. `aligner check` prints it; nothing here computes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlanRow:
    """One number or choice of a stage, and why it is so."""

    name: str
    value: str
    why: str = ""


@dataclass(frozen=True)
class StagePlan:
    """What one stage would do: steps, tokens, memory, time, precision."""

    name: str
    rows: tuple[PlanRow, ...]


@dataclass(frozen=True)
class Plan:
    """What a recipe would do, stage by stage."""

    stages: tuple[StagePlan, ...]
