"""Questions with one right answer as conversations: how options are put, and how a worked answer ends."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from aligner.data.readers.records import fault
from aligner.data.rows import Conversation, Dropped, Origin, Turn


def answered(
    origin: Origin, question: str, answer: str, family: str, *, key: str = "question"
) -> Conversation | Dropped:
    """A question and its answer; an empty answer is `empty_answer`, an empty question (at `key`) a `DataError`."""
    question, answer = question.strip(), answer.strip()
    if not question:
        raise fault(origin, f'"{key}" is empty', f'put text in "{key}", or delete the row')
    if not answer:
        return Dropped(origin, "empty_answer")
    return Conversation(origin, (Turn("user", question), Turn("assistant", answer)), family)


def with_options(origin: Origin, question: str, options: Sequence[str]) -> str:
    """The question, and below it each option as "A. text" (as in MMLU, Hendrycks et al. 2021, arXiv:2009.03300).

    Raises `DataError` where the question or an option is empty, or where there are not 2 to 26 options.
    """
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise fault(origin, f"the question has {len(options)} options", "give it two options or more, to Z")
    if not question.strip() or not all(option.strip() for option in options):
        raise fault(origin, "the question or one of its options is empty", "write it, or delete the row")
    lines = [f"{letter}. {option.strip()}" for letter, option in zip(ascii_uppercase, options, strict=False)]
    return "\n".join([question.strip(), *lines])


def right_letter(origin: Origin, letter: str, options: Sequence[str]) -> str:
    """The letter of the right option, in upper case; `DataError` where no option has it."""
    letters = ascii_uppercase[: len(options)]
    given = letter.strip().upper()
    if len(given) != 1 or given not in letters:
        raise fault(
            origin, f'the right answer is "{letter}"', f"name one of the options: {', '.join(letters)}"
        )
    return given


def worked(rationale: str, answer: str) -> str:
    """Reasoning, then a last line with the answer (chain of thought, Wei et al. 2022, arXiv:2201.11903)."""
    return f"{rationale.strip()}\nThe answer is {answer.strip().rstrip('.')}."
