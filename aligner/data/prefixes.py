"""Texts as ids, and how many of them are of a prompt that the text begins with; each text is tokenised once.

A tokenizer first cuts a text at its control tokens, then tokenises each piece for itself. So the ids up to a control
token are the same whatever follows it, and a prompt that ends in one, or in one and a tail of its own ("assistant" and
a line break), need not be tokenised a second time: its ids are the text's, up to there, and the tail's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from aligner.data.ids import begun_once, encode_texts, one_bos

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

TAIL_CHARACTERS = 64  # looked at for the last control token of a prompt
MAX_TAILS = 8  # remembered; where prompts have more, they end with words of their own


class PrefixedIds(NamedTuple):
    """A text's ids, and of each of its prompts the number of ids; None where the prompt alone has other ids."""

    ids: list[int]
    lengths: list[int | None]


class _Tail(NamedTuple):
    """The end of a prompt: its last control token and what follows it, the token's id, and the ids of the rest."""

    text: str
    control: str
    control_id: int
    ids: list[int]


def encode_prefixed(
    texts: Sequence[str], prompts: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase
) -> list[PrefixedIds]:
    """Ids of each text with one beginning token, and the lengths in ids of its prompts, which it begins with."""
    backend = plain_backend(tokenizer)
    if backend is None:
        ids = [one_bos(given, tokenizer) for given in encode_texts(texts, tokenizer)]
        pairs = zip(ids, prompts, strict=True)
        return [PrefixedIds(whole, _compared(whole, asked, tokenizer)) for whole, asked in pairs]
    tails, shared = _Tails(tokenizer, backend), _shared_ints(len(tokenizer))
    encodings = backend.encode_batch(list(texts), add_special_tokens=False)
    alone = _ids_alone(
        [one for asked in prompts for one in asked if tails.of(one) is None], backend, tails.bos
    )
    return [
        _prefixed(encoding, list(map(shared.__getitem__, encoding.ids)), asked, tails, alone, tokenizer)
        for encoding, asked in zip(encodings, prompts, strict=True)
    ]


def plain_backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer | None:
    """The tokenizer of the `tokenizers` library that does all the work; None where a class adds to it."""
    from transformers import PreTrainedTokenizerFast

    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    kind = type(tokenizer)
    changed = any(
        getattr(kind, name) is not getattr(PreTrainedTokenizerFast, name)
        for name in ("__call__", "_encode_plus")
    )
    if changed:
        return None
    backend = tokenizer.backend_tokenizer
    # set only where it has to be: another thread may be using it
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    if backend.encode_special_tokens:
        backend.encode_special_tokens = False
    return backend


@cache
def _shared_ints(count: int) -> list[int]:
    """One object of each id: a token of a row takes 8 bytes, where an int of its own takes 32 more."""
    return list(range(count))


class _Tails:
    """The ends that prompts have: a template gives all of them one or two."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, backend: Tokenizer) -> None:
        added = backend.get_added_tokens_decoder()
        self.bos = tokenizer.bos_token_id
        self._ids = {
            token.content: number
            for number, token in added.items()
            if token.special and not token.normalized and number != self.bos
        }
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._controls = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._backend = backend
        self._known: list[_Tail] = []

    def of(self, prompt: str) -> _Tail | None:
        """The end of a prompt; None where its last characters have no control token."""
        for tail in self._known:
            if prompt.endswith(tail.text):
                return tail
        found = self._found(prompt[-TAIL_CHARACTERS:])
        if found and len(self._known) < MAX_TAILS:
            self._known.append(found)
        return found

    def _found(self, end: str) -> _Tail | None:
        *_, last = [None, *self._controls.finditer(end)]
        if last is None:
            return None
        text, control = end[last.start() :], last.group()
        first, *ids = self._backend.encode(text, add_special_tokens=False).ids
        return _Tail(text, control, first, ids) if first == self._ids[control] else None


def _prefixed(
    encoding: Encoding,
    plain: list[int],
    prompts: Sequence[str],
    tails: _Tails,
    alone: Mapping[str, list[int]],
    tokenizer: PreTrainedTokenizerBase,
) -> PrefixedIds:
    ids = begun_once(plain, tails.bos)
    lengths: list[int | None] = []
    for prompt in prompts:
        tail = None if prompt in alone else tails.of(prompt)
        border = None if tail is None else _border(encoding, plain, len(prompt), tail)
        if prompt in alone:
            lengths.append(_length(ids, alone[prompt]))
        elif tail is None or border is None:
            lengths += _compared(ids, [prompt], tokenizer)
        else:
            same = plain[border : border + len(tail.ids)] == tail.ids
            lengths.append(border + len(tail.ids) + len(ids) - len(plain) if same else None)
    return PrefixedIds(ids, lengths)


def _border(encoding: Encoding, ids: list[int], characters: int, tail: _Tail) -> int | None:
    """Ids of the text up to a prompt's last control token; None where the text has something else there."""
    start = characters - len(tail.text)
    end = start + len(tail.control)
    number = encoding.char_to_token(end - 1)
    if number is None or ids[number] != tail.control_id:
        return None
    return number + 1 if encoding.token_to_chars(number) == (start, end) else None


def _compared(ids: list[int], prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int | None]:
    """The lengths of prompts that are tokenised for themselves."""
    return [_length(ids, one_bos(given, tokenizer)) for given in encode_texts(prompts, tokenizer)]


def _ids_alone(prompts: Sequence[str], backend: Tokenizer, bos: int | None) -> dict[str, list[int]]:
    """The ids of prompts without a control token near their ends, each tokenised once, all of them together."""
    unique = list(dict.fromkeys(prompts))
    encodings = backend.encode_batch(unique, add_special_tokens=False)
    return {prompt: begun_once(given.ids, bos) for prompt, given in zip(unique, encodings, strict=True)}


def _length(ids: list[int], alone: list[int]) -> int | None:
    return len(alone) if ids[: len(alone)] == alone else None
