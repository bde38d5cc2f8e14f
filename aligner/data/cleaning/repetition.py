"""The repetition rules of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1).

A line, paragraph or n-gram is a duplicate where it stood in the text before: the first is none. Characters are those of
words (n-grams) or of lines and paragraphs; white space between them does not count. Overlapping n-grams count once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from aligner.data.cleaning.measured import Measured, Rule, share

MAX_DUPLICATE_LINES = MAX_DUPLICATE_PARAGRAPHS = 0.30
MAX_DUPLICATE_LINE_CHARS = MAX_DUPLICATE_PARAGRAPH_CHARS = 0.20
MAX_TOP_NGRAM_CHARS = {2: 0.20, 3: 0.18, 4: 0.16}
MAX_DUPLICATE_NGRAM_CHARS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def duplicates(parts: Sequence[str]) -> tuple[float, float]:
    """The share of parts that stood there before, and the share of their characters; both 0..1."""
    seen: set[str] = set()
    again: list[str] = []
    for part in parts:
        if part in seen:
            again.append(part)
        seen.add(part)
    return share(len(again), len(parts)), share(sum(map(len, again)), sum(map(len, parts)))


def top_ngram_share(words: Sequence[str], n: int) -> float:
    """Share of the characters that lie in the most frequent n-gram, 0..1; 0 where none occurs twice.

    Of several that are as frequent, the longest counts.
    """
    grams = _ngrams(words, n)
    counts = Counter(grams)
    most = max(counts.values(), default=0)
    if most < 2:
        return 0.0
    top = max((gram for gram in counts if counts[gram] == most), key=lambda gram: sum(map(len, gram)))
    return _covered(words, n, [i for i, gram in enumerate(grams) if gram == top])


def duplicate_ngram_share(words: Sequence[str], n: int) -> float:
    """Share of the characters that lie in n-grams that stood there before, 0..1."""
    seen: set[tuple[str, ...]] = set()
    again: list[int] = []
    for i, gram in enumerate(_ngrams(words, n)):
        if gram in seen:
            again.append(i)
        seen.add(gram)
    return _covered(words, n, again)


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _covered(words: Sequence[str], n: int, starts: Sequence[int]) -> float:
    """Share of the characters within the n words from each start on, which come in their order."""
    chars, end = 0, 0
    for start in starts:
        chars += sum(map(len, words[max(start, end) : start + n]))
        end = start + n
    return share(chars, sum(map(len, words)))


def duplicate_lines(given: Measured) -> bool:
    """More than 30% of the lines are duplicates."""
    return duplicates(given.lines)[0] > MAX_DUPLICATE_LINES


def duplicate_paragraphs(given: Measured) -> bool:
    """More than 30% of the paragraphs are duplicates."""
    return duplicates(given.paragraphs)[0] > MAX_DUPLICATE_PARAGRAPHS


def duplicate_line_chars(given: Measured) -> bool:
    """More than 20% of the characters are in duplicate lines."""
    return duplicates(given.lines)[1] > MAX_DUPLICATE_LINE_CHARS


def duplicate_paragraph_chars(given: Measured) -> bool:
    """More than 20% of the characters are in duplicate paragraphs."""
    return duplicates(given.paragraphs)[1] > MAX_DUPLICATE_PARAGRAPH_CHARS


def top_ngrams(given: Measured) -> bool:
    """The most frequent 2-, 3- or 4-gram has more than 20%, 18% or 16% of the characters."""
    return any(top_ngram_share(given.words, n) > most for n, most in MAX_TOP_NGRAM_CHARS.items())


def duplicate_ngrams(given: Measured) -> bool:
    """Duplicate 5- to 10-grams have more than 15% to 10% of the characters."""
    return any(duplicate_ngram_share(given.words, n) > most for n, most in MAX_DUPLICATE_NGRAM_CHARS.items())


REPETITION: dict[str, Rule] = {
    "gopher_duplicate_lines": duplicate_lines,
    "gopher_duplicate_paragraphs": duplicate_paragraphs,
    "gopher_duplicate_line_chars": duplicate_line_chars,
    "gopher_duplicate_paragraph_chars": duplicate_paragraph_chars,
    "gopher_top_ngrams": top_ngrams,
    "gopher_duplicate_ngrams": duplicate_ngrams,
}
