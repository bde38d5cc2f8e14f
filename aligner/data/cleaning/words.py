"""Lists of bad words or keywords, one word or phrase a line (as the lists that C4 was cleaned with)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from aligner.data.cleaning.measured import share, tokens
from aligner.data.readers.files import find_files
from aligner.errors import DataError, Problem

Listed = dict[str, list[tuple[str, ...]]]  # the first token of an entry -> the entries, longest first


def read_words(paths: str | list[str]) -> Listed:
    """The entries of word files in UTF-8, case aside; blank lines and what follows a leading "#" are none.

    Raises `DataError` where a file is missing, is not UTF-8 or has no words.
    """
    found: set[tuple[str, ...]] = set()
    for path in find_files(paths):
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(Problem(str(path), "is not UTF-8", "save the list of words as UTF-8")) from error
        entries = {tuple(tokens(line)) for line in lines if line.strip() and not line.startswith("#")}
        if not entries:
            raise DataError(Problem(str(path), "has no words", "write one word or phrase a line"))
        found |= entries
    return listed(found)


def listed(entries: Iterable[tuple[str, ...]]) -> Listed:
    """Entries by their first token, longest first."""
    table: Listed = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: (-len(entry), entry)):
        table[entry[0]].append(entry)
    return dict(table)


def listed_share(text: str, words: Listed) -> float:
    """Share of a text's words that belong to listed words or phrases, 0..1.

    Whole words count, not parts of words; in scripts without spaces every character is a word. Punctuation is none,
    but where an entry has it.
    """
    given = tokens(text)
    hit, i = 0, 0
    while i < len(given):
        entry = next((e for e in words.get(given[i], ()) if tuple(given[i : i + len(e)]) == e), None)
        hit += len(entry) if entry else 0
        i += len(entry) if entry else 1
    return min(1.0, share(hit, sum(token.isalnum() for token in given) or hit))
