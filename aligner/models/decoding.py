"""Response tokens as text: the one reading that every reward and every measurement judges by."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


def decode_responses(token_ids: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Text up to the end token, surrounding blanks stripped.

    Control tokens before the end are shown: nobody shall be paid for what the judge cannot see.
    """
    return [text.strip() for text in decode_whole(token_ids, tokenizer)]


def decode_whole(token_ids: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Text up to the end token as it was written, blanks and line ends at both ends included."""
    ends = [_before(list(ids), tokenizer.eos_token_id) for ids in token_ids]
    return [str(text) for text in tokenizer.batch_decode(ends)]


def _before(ids: list[int], end: int | None) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids
