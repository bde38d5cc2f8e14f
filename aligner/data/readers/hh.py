"""Format `hh`: {"chosen", "rejected"} rows of whole dialogues as text (Bai et al. 2022, arXiv:2204.05862)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from aligner.data.readers.pairs import pair_row
from aligner.data.readers.records import Record
from aligner.data.rows import Dropped, Pair, Turn

_MARK = re.compile(r"\n\n(Human|Assistant):")
_ANSWER = "\n\nAssistant:"


def read_hh(record: Record) -> Iterator[Pair | Dropped]:
    """One pair a row: what both dialogues share up to the last answer mark is the prompt.

    Dropped, by name: `no_common_prompt` (nothing shared), `roles_out_of_order` (the prompt does not go Human,
    Assistant, ..., Human), `further_turns` (more turns after an answer), `empty_turn`, `empty_answer`,
    `answers_equal`.
    """
    chosen, rejected = record.text("chosen"), record.text("rejected")
    border = chosen.rfind(_ANSWER, 0, _shared(chosen, rejected))
    if border < 0:
        yield Dropped(record.origin, "no_common_prompt")
        return
    prompt = _turns(chosen[:border])
    answers = [dialogue[border + len(_ANSWER) :] for dialogue in (chosen, rejected)]
    if prompt is None:
        yield Dropped(record.origin, "roles_out_of_order")
    elif any(_MARK.search(answer) for answer in answers):
        yield Dropped(record.origin, "further_turns")
    else:
        yield pair_row(record.origin, prompt, *answers, margin=None, kind="")


def _shared(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    differing = (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _turns(dialogue: str) -> tuple[Turn, ...] | None:
    """The turns of a dialogue that starts and ends with the Human and takes turns; else None."""
    before, *parts = _MARK.split(dialogue)
    speakers, contents = parts[::2], parts[1::2]
    if before.strip() or len(speakers) % 2 == 0:
        return None
    if any(speaker != ("Human", "Assistant")[index % 2] for index, speaker in enumerate(speakers)):
        return None
    return tuple(
        Turn("assistant" if index % 2 else "user", content.strip()) for index, content in enumerate(contents)
    )
