"""Near duplicates by MinHash and banding (Broder 1997; Lee et al. 2021, arXiv:2107.06499).

Sizes are those of FineWeb (Penedo et al. 2024, arXiv:2406.17557, 3.4): shingles of 5 words, 112 hashes in 14 bands of
8. Two texts whose sets of shingles have the Jaccard similarity J meet in some band with the probability
1 - (1 - J^8)^14: 5% at 0.5, 56% at 0.7, 92% at 0.8, over 99.9% at 0.9. No number is random: equal texts always give
equal hashes, on every machine.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from aligner.data.cleaning.measured import spoken_words

SHINGLE_WORDS = 5
BANDS, BAND_ROWS = 14, 8
HASHES = BANDS * BAND_ROWS
_CHUNK = 256  # shingles hashed at once: two arrays of 256 x 112 x 8 bytes stay in the cache of a processor
_KNOWN_WORDS = 65_536  # whose hashes are kept, some 10 MB: a few words make up most of any text
_LONGEST_KNOWN = 64  # characters: what is longer is no word that comes again
# The odd constants of splitmix64 (Steele et al. 2014): a step, and two multipliers that mix all bits.
_STEP, _MIX_1, _MIX_2 = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))

Hashes = NDArray[np.uint64]


def shingles(text: str) -> Hashes:
    """Hashes of the different runs of 5 words, (S,) sorted; of a shorter text one, of a text without words none.

    Case, white space and punctuation aside.
    """
    return np.unique(_runs_of_words(text))


def _runs_of_words(text: str) -> Hashes:
    """Hashes of all runs of 5 words, in their order."""
    words = [word for word in spoken_words(text) if word.isalnum() or word[0] == "_"]
    word_hashes = np.fromiter(map(_word_hashes.__getitem__, words), dtype=np.uint64, count=len(words))
    width = min(SHINGLE_WORDS, len(words))
    return hashed_runs(word_hashes, np.arange(len(words) - width + 1), width) if width else word_hashes


class _WordHashes(dict[str, int]):
    """The hash of every word it is asked for, so many of them kept."""

    def __missing__(self, word: str) -> int:
        found = int.from_bytes(blake2b(word.encode(), digest_size=8).digest())
        if len(self) >= _KNOWN_WORDS:
            self.clear()
        if len(word) <= _LONGEST_KNOWN:
            self[word] = found
        return found


_word_hashes = _WordHashes()


def hashed_runs(word_hashes: Hashes, starts: NDArray[np.intp], width: int) -> Hashes:
    """A hash of each run of `width` words, by where it starts: (S,)."""
    combined = np.zeros(len(starts), dtype=np.uint64)
    for i in range(width):  # whole numbers wrap around at 2^64
        combined = mixed(combined + word_hashes[starts + i])
    return combined


def signature(text: str) -> Hashes | None:
    """The least of each of 112 hashes over a text's shingles, (112,); None for a text without words."""
    found = _runs_of_words(text)  # a repeated one changes no minimum
    if not len(found):
        return None
    least = np.full(HASHES, np.iinfo(np.uint64).max, dtype=np.uint64)
    hashed, scratch = np.empty((2, min(_CHUNK, len(found)), HASHES), dtype=np.uint64)
    for start in range(0, len(found), _CHUNK):
        part = found[start : start + _CHUNK, None]
        now, spare = hashed[: len(part)], scratch[: len(part)]
        np.bitwise_xor(part, _SEEDS, out=now)
        _mix(now, spare)
        np.minimum(least, now.min(axis=0), out=least)
    return least


def estimated_similarity(one: Hashes, other: Hashes) -> float:
    """The share of equal hashes in two signatures: an estimate of Jaccard similarity, 0..1."""
    return float((one == other).mean())


def mixed(values: Hashes) -> Hashes:
    """Every bit of the input decides every bit of the output (the last part of splitmix64)."""
    values = values.copy()
    _mix(values, np.empty_like(values))
    return values


def _mix(values: Hashes, scratch: Hashes) -> None:
    """`mixed`, in place: new arrays for every step would cost more than the arithmetic."""
    for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
        np.right_shift(values, np.uint64(shift), out=scratch)
        np.bitwise_xor(values, scratch, out=values)
        np.multiply(values, factor, out=values)
    np.right_shift(values, np.uint64(31), out=scratch)
    np.bitwise_xor(values, scratch, out=values)


_SEEDS = mixed(np.arange(1, HASHES + 1, dtype=np.uint64) * _STEP)


class NearDuplicates:
    """Remembers the texts it let pass, by the bands of their signatures: 14 times 16 bytes a text."""

    def __init__(self) -> None:
        self._bands: set[bytes] = set()

    def seen(self, text: str) -> bool:
        """Whether the text is near to one before it; if not, it is remembered. A text without words is near to none."""
        bands = _bands(text)
        if bands & self._bands:
            return True
        self._bands |= bands
        return False

    def near(self, text: str) -> bool:
        """Whether the text is near to a remembered one; it is not remembered itself."""
        return bool(_bands(text) & self._bands)


def _bands(text: str) -> set[bytes]:
    """Hashes of the bands of a text's signature, none for a text without words."""
    least = signature(text)
    if least is None:
        return set()
    return {
        blake2b(band.tobytes(), digest_size=16, salt=bytes([i])).digest()
        for i, band in enumerate(least.reshape(BANDS, BAND_ROWS))
    }
