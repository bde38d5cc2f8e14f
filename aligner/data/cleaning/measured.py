"""A text as the rules of cleaning see it: words, lines, paragraphs, each worked out once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

# Scripts that are written without spaces: Thai, Lao, Burmese, Khmer, kana, Han. Each character is a word there.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+"
_WORDS, _TOKEN = re.compile(_WORD), re.compile(f"{_WORD}|[^\\w\\s]")
# Of ASCII, small letters for great ones and a space for all that is in no word: three times as fast as the expression.
_SPACED = {i: char.lower() if (char := chr(i)).isalnum() or char == "_" else " " for i in range(128)}


@dataclass(frozen=True)
class Measured:
    """A text and its parts: words (what white space parts, as for Gopher), lines and paragraphs, none of them empty."""

    text: str

    @cached_property
    def words(self) -> list[str]:
        """What white space parts."""
        return self.text.split()

    @cached_property
    def lines(self) -> list[str]:
        """Lines with something in them, white space around them aside."""
        return [line.strip() for line in self.text.split("\n") if line.strip()]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What blank lines part, white space around it aside."""
        return [part.strip() for part in re.split(r"\n\s*\n", self.text) if part.strip()]


Rule = Callable[[Measured], bool]  # whether the rule is broken


def share(part: float, whole: float) -> float:
    """`part` over `whole`; 0 of nothing."""
    return part / whole if whole else 0.0


def tokens(text: str) -> list[str]:
    """Words and punctuation marks in their order, case aside; in scripts without spaces every character is a word."""
    return _TOKEN.findall(text.casefold())


def spoken_words(text: str) -> list[str]:
    """The `tokens` that are no punctuation marks."""
    if text.isascii():
        return text.translate(_SPACED).split()
    return _WORDS.findall(text.casefold())
