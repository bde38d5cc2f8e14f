"""Text as ids, nothing added but what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_texts(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, plain: bool = False
) -> list[list[int]]:
    """Ids of each text, nothing added. In `plain` text a control token is spelt out, not obeyed."""
    if not texts:
        return []
    unique = list(dict.fromkeys(texts))  # both answers of a pair share their prompt
    encoding = tokenizer(
        unique,
        add_special_tokens=False,
        split_special_tokens=plain,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    ids: dict[str, list[int]] = dict(zip(unique, encoding["input_ids"], strict=True))
    return [ids[text] for text in texts]


def ids_inside(piece: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of a piece inside a text: SentencePiece's tokenizers begin a text with a space that is not there."""
    plain, x, line_end, both = encode_texts([piece, "x", "\n", "\nx"], tokenizer)
    if both == line_end + x:
        return plain
    for anchor in ("\n", "x"):
        before, whole = encode_texts([anchor, anchor + piece], tokenizer)
        if whole[: len(before)] == before:
            return whole[len(before) :]
    return plain


def one_bos(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids with exactly one beginning-of-text token in front, where the tokenizer has one."""
    return begun_once(ids, tokenizer.bos_token_id)


def begun_once(ids: list[int], bos: int | None) -> list[int]:
    """`one_bos` where the token is known: a tokenizer takes as long to tell it as to tokenise a word."""
    if bos is None:
        return ids
    first = next((index for index, token in enumerate(ids) if token != bos), len(ids))
    return ids if first == 1 else [bos, *ids[first:]]
