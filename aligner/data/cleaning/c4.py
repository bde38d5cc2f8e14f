"""The rules of C4 (Raffel et al. 2020, arXiv:1910.10683, 2.2): lines that go, then pages that go."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from aligner.data.cleaning.measured import Measured, Rule

MIN_LINE_WORDS = 5
MIN_SENTENCES = 3
_TERMINAL = (".", "!", "?", '"', "”")
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
# A sentence ends with a mark before white space, quotes and brackets aside, or with a mark of a script without spaces.
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？]")


def unpunctuated(line: str) -> bool:
    """The line does not end in a period, exclamation mark, question mark or end quotation mark."""
    return not line.rstrip().endswith(_TERMINAL)


def short(line: str) -> bool:
    """The line has fewer than 5 words."""
    return len(line.split()) < MIN_LINE_WORDS


def javascript(line: str) -> bool:
    """The line has the word Javascript in it: a warning that it should be switched on."""
    return "javascript" in line.lower()


def policy(line: str) -> bool:
    """The line has a notice about cookies, privacy or terms of use in it."""
    return any(phrase in line.lower() for phrase in _POLICY)


LINES: dict[str, Callable[[str], bool]] = {
    "c4_unpunctuated_lines": unpunctuated,
    "c4_short_lines": short,
    "c4_javascript_lines": javascript,
    "c4_policy_lines": policy,
}


def cut_lines(text: str, names: Sequence[str]) -> tuple[str, Counter[str]]:
    """The text without the lines that break one of the rules named, and how many went by which (the first that holds).

    Blank lines stay where they part what is left. A text that loses no line stays as it is, to the letter.
    """
    cut: Counter[str] = Counter()
    kept: list[str] = []
    for line in text.split("\n"):
        broken = next((name for name in names if line.strip() and LINES[name](line)), None)
        if broken is None:
            kept.append(line)
        else:
            cut[broken] += 1
    return (re.sub(r"\n(\s*\n)+", "\n\n", "\n".join(kept)).strip() if cut else text), cut


def lorem_ipsum(given: Measured) -> bool:
    """A placeholder stands in the text."""
    return "lorem ipsum" in given.text.lower()


def curly_brace(given: Measured) -> bool:
    """A curly bracket stands in the text: it may be code."""
    return "{" in given.text


def few_sentences(given: Measured) -> bool:
    """Fewer than 3 sentences."""
    return len(_SENTENCE_END.findall(given.text)) < MIN_SENTENCES


PAGES: dict[str, Rule] = {
    "c4_lorem_ipsum": lorem_ipsum,
    "c4_curly_brace": curly_brace,
    "c4_few_sentences": few_sentences,
}
