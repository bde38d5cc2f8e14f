"""Cleaning before pretraining: length and character filters, then exact repeats (arXiv:2303.18223, 4.1.2)."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from aligner.data.rows import Row, row_contents, row_text
from aligner.recipe.data import CleanSpec


def normalised_hash(text: str) -> bytes:
    """16 bytes that two texts share when they are equal, whitespace and case aside."""
    return blake2b(" ".join(text.split()).casefold().encode(), digest_size=16).digest()


def letter_share(text: str) -> float:
    """Letters and spaces over all characters, 0..1; 0 for an empty text."""
    return sum(char.isalpha() or char.isspace() for char in text) / len(text) if text else 0.0


def cleaner(spec: CleanSpec) -> Callable[[Row], str | None]:
    """A judge of rows, one at a time: the reason against a row, or None.

    Reasons: `too_short`, `too_long`, `few_letters`, `duplicate`. The judge remembers every row it let pass, so
    one judge over several sources finds repeats between them.
    """
    seen: set[bytes] = set()

    def reason_against(row: Row) -> str | None:
        text = "\n".join(row_contents(row))
        if len(text) < spec.min_chars:
            return "too_short"
        if len(text) > spec.max_chars:
            return "too_long"
        if letter_share(text) < spec.min_letter_share:
            return "few_letters"
        if not spec.deduplicate:
            return None
        key = normalised_hash(row_text(row))
        if key in seen:
            return "duplicate"
        seen.add(key)
        return None

    return reason_against
