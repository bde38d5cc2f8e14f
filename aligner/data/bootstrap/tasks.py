"""Tasks of self-instruct (Wang et al. 2022, arXiv:2212.10560): an instruction with solved instances; seeds are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from aligner.data.assembly import Asked, Step, assemble
from aligner.data.costs import RowCost
from aligner.data.refusals import refuse_forged
from aligner.data.report import DataReport
from aligner.data.rows import Conversation, Example, Row
from aligner.recipe.data import HoldoutSpec, SourceSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LABEL_WORDS = (
    2  # of the paper's 175 seed tasks this finds 23 of the 26 that are classifications, and 5 that are none
)


@dataclass(frozen=True)
class Instance:
    """What a task may be given ("" where it needs nothing) and its right answer."""

    input: str
    output: str


@dataclass(frozen=True)
class InstructionTask:
    """An instruction and its instances; `classification`: the answers are labels, of which there are few."""

    instruction: str
    classification: bool
    instances: tuple[Instance, ...]

    def rows(self) -> list[dict[str, str]]:
        """Rows in the form of Alpaca, one an instance."""
        return [
            {"instruction": self.instruction, "input": instance.input, "output": instance.output}
            for instance in self.instances
        ]


@dataclass(frozen=True)
class _Exchange:
    """A row: its instruction on one line, what it is given and answered, and what it says of being a classification."""

    instruction: str
    instance: Instance
    classification: bool | None


@dataclass(frozen=True)
class SeedTasks:
    """Seed tasks in a random order, each instruction once, and the account of their rows."""

    tasks: list[InstructionTask]
    report: DataReport


def build_seed_tasks(
    sources: Sequence[SourceSpec], tokenizer: PreTrainedTokenizerBase, *, seed: int
) -> SeedTasks:
    """Seed tasks from conversations of one question and one answer; others are dropped as `not_one_exchange`.

    What is the instruction and what its input, and whether it is a classification, the rows' format says. Where it
    does not, the first paragraph of a question is the instruction, and a task whose answers all have at most two words
    is a classification. Raises `DataError` where no task is left.
    """

    def convert(rows: list[Row]) -> list[list[_Exchange]]:
        return [[_exchange(cast(Conversation, row))] for row in rows]

    forged = refuse_forged(tokenizer)

    def reason_against(row: Row) -> str | None:
        return _reason_against(row) or forged(row)

    step = Step[_Exchange]("conversation", reason_against, convert, lambda _: RowCost())
    built = assemble(Asked(sources, HoldoutSpec()), step, seed=seed)
    by_instruction: dict[str, list[_Exchange]] = {}
    for exchange in built.train:
        by_instruction.setdefault(exchange.instruction, []).append(exchange)
    return SeedTasks([_task(text, found) for text, found in by_instruction.items()], built.report)


def _reason_against(row: Row) -> str | None:
    if isinstance(row, Example):
        return None  # its templates write one exchange
    assert isinstance(row, Conversation)
    roles = [turn.role for turn in row.turns]
    whole = roles == ["user", "assistant"] and not any(turn.about_tools for turn in row.turns)
    return None if whole else "not_one_exchange"


def _exchange(row: Conversation) -> _Exchange:
    asked, answered = row.turns
    question, length = asked.content.strip(), row.instruction_chars
    instruction, _, given = question.partition("\n\n")
    if length is not None:
        instruction, given = question[:length], question[length:]
    return _Exchange(
        one_line(instruction), Instance(given.strip(), answered.content.strip()), row.classification
    )


def _task(instruction: str, exchanges: Sequence[_Exchange]) -> InstructionTask:
    instances = tuple(dict.fromkeys(each.instance for each in exchanges))  # a row of weight 2 comes twice
    said = {each.classification for each in exchanges} - {None}
    short = all(len(instance.output.split()) <= LABEL_WORDS for instance in instances)
    return InstructionTask(instruction, said == {True} if said else short, instances)


def one_line(text: str) -> str:
    """The text with every run of white space as one space: pages tell tasks apart by lines."""
    return " ".join(text.split())
