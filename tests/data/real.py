"""Public files for tests that need them; the tests skip where they are not there (set ALIGNER_REALDATA)."""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from aligner.data.cleaning.pii import FINDERS, find_pii

ROOT = Path(os.environ.get("ALIGNER_REALDATA", Path(__file__).parents[2].parent / "shared" / "realdata"))
KINDS = {"EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "IP_ADDRESS": "ip", "CREDIT_CARD": "card", "IBAN_CODE": "iban"}  # fmt: skip


def real(name: str) -> str:
    if not (ROOT / name).exists():
        pytest.skip(f"real data not here: {ROOT / name}")
    return str(ROOT / name)


@cache
def presidio_scores() -> dict[str, tuple[float, float]]:
    """(precision, recall) by kind; a piece is right where kind, start and end are."""
    right, found, there = Counter(), Counter(), Counter()
    for row in json.loads(Path(real("presidio/synth_dataset_v2.json")).read_text(encoding="utf-8")):
        wanted = {
            (span["start_position"], span["end_position"], KINDS[span["entity_type"]])
            for span in row["spans"]
            if span["entity_type"] in KINDS
        }
        given = {(piece.start, piece.end, piece.kind) for piece in find_pii(row["full_text"], list(FINDERS))}
        for counter, pieces in ((right, given & wanted), (found, given), (there, wanted)):
            counter.update(kind for _, _, kind in pieces)
    return {kind: (right[kind] / found[kind], right[kind] / there[kind]) for kind in FINDERS}
