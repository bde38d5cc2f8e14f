"""The collector of garbage while rows are built."""

from __future__ import annotations

import gc

import pytest

from aligner.data.collector import only_new_objects


def test_what_was_there_is_looked_at_again_whatever_happens() -> None:
    assert gc.get_freeze_count() == 0
    with pytest.raises(ValueError, match="a bad row"), only_new_objects():
        assert gc.get_freeze_count() > 1000
        raise ValueError("a bad row")
    assert gc.get_freeze_count() == 0 and gc.isenabled()
