"""What can go wrong, in words for the person who can mend it.

Every error a user can cause is an `AlignerError`: where it is, what is wrong, what to do. The command line prints
`str(error)` and exits with `error.exit_code`; a traceback is only ever our own fault (exit code 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

# What a terminal would obey: C0 as Unicode's pictures, C1 as the two characters that it stands for (ECMA-48, 5.3).
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
_PICTURES |= {0x7F: "\u2421"} | {code: f"\u241b{chr(code - 0x40)}" for code in range(0x80, 0xA0)}


def visible(text: str) -> str:
    """The text with its control characters shown, not obeyed; line ends and tabs stay."""
    return text.translate(_PICTURES)


@dataclass(frozen=True)
class Problem:
    """One mistake: `where` is "file:line" (or a file, or a field), `what` the fault, `remedy` what would work.

    As text, control characters are shown: names and words of files that strangers wrote stand in it.
    """

    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return visible(f"{text}\n    {self.remedy}" if self.remedy else text)


class AlignerError(Exception):
    """A mistake the user can mend; carries one or more `Problem`s and the exit code of the command."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem] | Problem) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RecipeError(AlignerError):
    """The recipe says something that cannot be done; all mistakes of a recipe are told at once."""


class DataError(AlignerError):
    """A data file or row that cannot be used."""


class ModelError(AlignerError):
    """A model, tokenizer or adapter that cannot be loaded or does not fit."""


class RunError(AlignerError):
    """A run folder that is locked, changed or damaged."""


class StorageError(RunError):
    """The disk is full or broken; what was saved before is as it was, and the same command goes on from it."""

    exit_code = 3


class TrainingError(AlignerError):
    """Training went wrong in a way that stops the run (non-finite loss, impossible ratio)."""

    exit_code = 4


class Interrupted(AlignerError):
    """The user stopped the run; a checkpoint is saved and the same command goes on from it."""

    exit_code = 130


def nearest(word: str, valid: Sequence[str]) -> str:
    """`did you mean "x"?`, or the whole list of what is valid when nothing is near."""
    close = get_close_matches(word, valid, n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else f"valid: {', '.join(valid)}"


def at(path: Path | str, line: int | None = None) -> str:
    """The place of a problem as "file:line"."""
    return f"{path}:{line}" if line else str(path)
