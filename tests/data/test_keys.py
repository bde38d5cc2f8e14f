"""Keys of texts, and what has been seen of them, against Python's own sets."""

from __future__ import annotations

import random
from collections import defaultdict

from aligner.data.keys import FIRST_PLACES, KEY_BYTES, KeySet, key_of, normalised_hash, numbered


def test_a_key_set_says_what_a_set_says() -> None:
    chooser = random.Random(0)
    # few low bits, so that many keys want the same place; 0 is the mark of a free one; each key comes about twice
    keys = [chooser.randrange(1, 31) << 52 | chooser.randrange(100) << 6 for _ in range(6000)]
    keys += [0, 1 << 63, 0, (1 << 64) - 1, 1 << 63]
    seen, known = KeySet(), set[int]()
    for key in keys:
        assert seen.add(key) is (key not in known)
        known.add(key)
    assert len(known) > 2 * FIRST_PLACES  # it grew


def test_keys_are_of_the_text_alone() -> None:
    # printf 'Ann  Lee' | b2sum -l 64
    assert f"{key_of('Ann  Lee'):0{2 * KEY_BYTES}x}" == "9051dd668fd55ec2"
    assert key_of("Ann  Lee") != key_of("ann lee") == normalised_hash(" Ann \n LEE ")


def test_equal_keys_have_equal_numbers() -> None:
    keys = [7, 1 << 63, 7, 0, (1 << 64) - 1, 0]
    numbers = numbered(keys).tolist()
    groups = defaultdict(set)
    for key, number in zip(keys, numbers, strict=True):
        groups[key].add(number)
    assert sorted(number for (number,) in groups.values()) == [0, 1, 2, 3]
