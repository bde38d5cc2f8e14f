"""What is kept of generated instructions and instances, and the reason why the rest is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from aligner.data.bootstrap.tasks import Instance
from aligner.data.cleaning.measured import spoken_words
from aligner.errors import DataError, Problem
from aligner.recipe.selfinstruct import SelfInstructSpec


class Novelty:
    """How near a text is to all that were added: the greatest ROUGE-L F1 (Lin 2004), 0..1.

    F1 = 2 x LCS / (m + n) over words, case and punctuation aside, LCS the length of the longest common subsequence;
    rapidfuzz calls that number the normalised Indel similarity. By hand: "Sort these three words" and "Sort the
    words" have sort, words in common -> 2 x 2 / (4 + 3) = .571.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        """`DataError` where the library is missing."""
        self._nearest = _nearest()
        self._seen = [spoken_words(text) for text in texts]

    def add(self, text: str) -> None:
        """From now on, what is like this text is not new."""
        self._seen.append(spoken_words(text))

    def rouge_l(self, text: str) -> float:
        """The greatest ROUGE-L F1 to a text that was added; 0 before there is one."""
        return self._nearest(spoken_words(text), self._seen)


def _nearest() -> Callable[[list[str], Sequence[list[str]]], float]:
    try:
        from rapidfuzz import process  # an extra: only self-instruct compares so
        from rapidfuzz.distance import Indel
    except ImportError as error:
        what = "the novelty of instructions needs the package rapidfuzz"
        raise DataError(Problem("selfinstruct", what, "pip install 'aligner[data]'")) from error

    def nearest(words: list[str], seen: Sequence[list[str]]) -> float:
        found = process.extractOne(words, seen, scorer=Indel.normalized_similarity) if words else None
        return float(found[1]) if found else 0.0

    return nearest


def reason_against_instruction(text: str, novelty: Novelty, spec: SelfInstructSpec) -> str | None:
    """Why an instruction is not kept, or None.

    Reasons: `too_short`, `too_long`, `no_letter_first` (punctuation or a number leads), `listed_words`, `similar`
    (ROUGE-L of at least `max_rouge_l` to a seed or to one that was kept).
    """
    words = spoken_words(text)
    if len(words) < spec.min_words:
        return "too_short"
    if len(words) > spec.max_words:
        return "too_long"
    if not text[0].isalpha():
        return "no_letter_first"
    if any(_has_phrase(words, spoken_words(phrase)) for phrase in spec.keywords):
        return "listed_words"
    return "similar" if novelty.rouge_l(text) >= spec.max_rouge_l else None


def _has_phrase(words: list[str], phrase: list[str]) -> bool:
    width = len(phrase)
    return width > 0 and any(words[at : at + width] == phrase for at in range(len(words) - width + 1))


def instance_reasons(instruction: str, instances: Sequence[Instance]) -> list[str | None]:
    """For each instance of an instruction the reason why it is not kept, or None.

    Reasons: `empty_answer`, `output_is_input`, `output_is_instruction`, `duplicate` (the first stays) and
    `contradicting`: the same input with different outputs, all of which go.
    """
    outputs: dict[str, set[str]] = {}
    for one in instances:
        if one.output:
            outputs.setdefault(one.input, set()).add(one.output)
    seen: set[Instance] = set()
    reasons = []
    for one in instances:
        reasons.append(_reason_against(one, instruction, outputs.get(one.input, set()), seen))
        seen.add(one)
    return reasons


def _reason_against(one: Instance, instruction: str, outputs: set[str], seen: set[Instance]) -> str | None:
    if not one.output:
        return "empty_answer"
    if one.output == one.input:
        return "output_is_input"
    if one.output == instruction:
        return "output_is_instruction"
    if len(outputs) > 1:
        return "contradicting"
    return "duplicate" if one in seen else None
