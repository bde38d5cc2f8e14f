"""What self-instruct has made so far, and what became of all that was written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from aligner.data.bootstrap.tasks import Instance, InstructionTask


@dataclass
class Account:
    """`read` = kept + the sum of `dropped` (by reason)."""

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def kept(self) -> int:
        """Those without a reason against them."""
        return self.read - self.dropped.total()

    def judge(self, reason: str | None) -> bool:
        """Count one; whether it is kept."""
        self.read += 1
        if reason is not None:
            self.dropped[reason] += 1
        return reason is None


@dataclass
class Pool:
    """The new tasks, and what became of all that was written: everything that decides later rounds."""

    tasks: list[InstructionTask] = field(default_factory=list)
    instructions: Account = field(default_factory=Account)
    instances: Account = field(default_factory=Account)

    def to_json(self) -> dict[str, Any]:
        """The pool as plain values."""
        accounts = {"instructions": self.instructions, "instances": self.instances}
        told = {name: {"read": one.read, "dropped": dict(one.dropped)} for name, one in accounts.items()}
        return {"tasks": [asdict(task) for task in self.tasks], **told}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Pool:
        """The pool that `to_json` was taken of."""
        tasks = [
            InstructionTask(
                task["instruction"],
                task["classification"],
                tuple(Instance(**one) for one in task["instances"]),
            )
            for task in values["tasks"]
        ]
        accounts = [
            Account(values[name]["read"], Counter(values[name]["dropped"]))
            for name in ("instructions", "instances")
        ]
        return cls(tasks, *accounts)

    def rows(self) -> list[dict[str, str]]:
        """Every instance as a row of Alpaca."""
        return [row for task in self.tasks for row in task.rows()]
