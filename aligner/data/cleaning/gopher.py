"""The quality rules of Gopher (Rae et al. 2021, arXiv:2112.11446, A1.1). They were made for English prose."""

from __future__ import annotations

from aligner.data.cleaning.measured import Measured, Rule, share

MIN_WORDS, MAX_WORDS = 50, 100_000
MIN_WORD_CHARS, MAX_WORD_CHARS = 3, 10  # mean length of a word
MAX_SYMBOLS_PER_WORD = 0.1  # of hash signs, and of ellipses
MAX_BULLET_LINES = 0.9
MAX_ELLIPSIS_LINES = 0.3
MIN_ALPHABETIC_WORDS = 0.8
STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
MIN_STOP_WORDS = 2
_BULLETS = ("•", "‣", "◦", "▪", "●", "- ", "* ")
_ELLIPSES = ("...", "…")


def word_count(given: Measured) -> bool:
    """Fewer than 50 words, or more than 100,000."""
    return not MIN_WORDS <= len(given.words) <= MAX_WORDS


def word_length(given: Measured) -> bool:
    """The mean word has fewer than 3 characters, or more than 10 (punctuation at a word counts)."""
    mean = share(sum(map(len, given.words)), len(given.words))
    return not MIN_WORD_CHARS <= mean <= MAX_WORD_CHARS


def symbols(given: Measured) -> bool:
    """More than one hash sign, or more than one ellipsis, to ten words."""
    ellipses = sum(given.text.count(mark) for mark in _ELLIPSES)
    most = max(given.text.count("#"), ellipses)
    return share(most, len(given.words)) > MAX_SYMBOLS_PER_WORD


def bullets(given: Measured) -> bool:
    """More than 90% of the lines start with a bullet point (a hyphen or star and a space are one)."""
    found = sum(line.startswith(_BULLETS) for line in given.lines)
    return share(found, len(given.lines)) > MAX_BULLET_LINES


def ellipsis_lines(given: Measured) -> bool:
    """More than 30% of the lines end with an ellipsis."""
    return share(sum(line.endswith(_ELLIPSES) for line in given.lines), len(given.lines)) > MAX_ELLIPSIS_LINES


def alphabetic(given: Measured) -> bool:
    """Fewer than 80% of the words have a letter in them."""
    lettered = sum(any(map(str.isalpha, word)) for word in given.words)
    return share(lettered, len(given.words)) < MIN_ALPHABETIC_WORDS


def stop_words(given: Measured) -> bool:
    """Fewer than two of: the, be, to, of, and, that, have, with (punctuation at a word and case aside)."""
    return (
        len(STOP_WORDS & {word.strip(".,;:!?\"'()[]“”‘’").lower() for word in given.words}) < MIN_STOP_WORDS
    )


QUALITY: dict[str, Rule] = {
    "gopher_word_count": word_count,
    "gopher_word_length": word_length,
    "gopher_symbols": symbols,
    "gopher_bullets": bullets,
    "gopher_ellipsis_lines": ellipsis_lines,
    "gopher_alphabetic": alphabetic,
    "gopher_stop_words": stop_words,
}
