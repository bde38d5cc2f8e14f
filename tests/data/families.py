"""Public families of chat templates, each written twice from its public description: as Jinja, and as pieces in Python.

The pieces are the oracle: what the rendered text is, and which of it is an answer with its end token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from aligner.data.rows import Turn
from tests.tiny import SENTENCES


class Piece(NamedTuple):
    text: str
    learnt: bool = False


Pieces = Callable[[list[Turn]], list[Piece]]


@dataclass(frozen=True)
class Family:
    """A template, its control tokens, the token that ends an answer, and what becomes of turns by its description.

    `spaces`: how its tokenizers spell: bytes (GPT-2's), or words with "▁" for a space (SentencePiece's).
    """

    name: str
    template: str
    controls: tuple[str, ...]
    bos: str | None
    eos: str
    end: str
    pieces: Pieces
    spaces: str = "bytes"
    system: bool = True


def split(turns: list[Turn]) -> tuple[str, list[Turn]]:
    return (turns[0].content, turns[1:]) if turns[0].role == "system" else ("", turns)


def chatml(turns: list[Turn]) -> list[Piece]:
    system, rest = split(turns)
    pieces = [Piece(f"<|im_start|>system\n{system or 'You are a helpful assistant.'}<|im_end|>\n")]
    for turn in rest:
        pieces.append(Piece(f"<|im_start|>{turn.role}\n"))
        pieces += [Piece(f"{turn.content}<|im_end|>", turn.role == "assistant"), Piece("\n")]
    return pieces


def llama3(turns: list[Turn]) -> list[Piece]:
    pieces = [Piece("<|begin_of_text|>")]
    for turn in turns:
        pieces.append(Piece(f"<|start_header_id|>{turn.role}<|end_header_id|>\n\n"))
        pieces.append(Piece(f"{turn.content.strip()}<|eot_id|>", turn.role == "assistant"))
    return pieces


def llama2(turns: list[Turn]) -> list[Piece]:
    system, rest = split(turns)
    told = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    pieces = []
    for number, turn in enumerate(rest):
        if turn.role == "user":
            asked = (told if number == 0 else "") + turn.content
            pieces.append(Piece(f"<s>[INST] {asked.strip()} [/INST]"))
        else:
            pieces.append(Piece(f" {turn.content.strip()} </s>", True))
    return pieces


def mistral(turns: list[Turn]) -> list[Piece]:
    system, rest = split(turns)
    asked = max(number for number, turn in enumerate(rest) if turn.role == "user")
    pieces = [Piece("<s>")]
    for number, turn in enumerate(rest):
        if turn.role == "user":
            told = f"{system}\n\n" if system and number == asked else ""
            pieces.append(Piece(f"[INST] {told}{turn.content}[/INST]"))
        else:
            seen_when_asked = not system or number > asked
            pieces.append(Piece(f" {turn.content.strip()}</s>", seen_when_asked))
    return pieces


def gemma(turns: list[Turn]) -> list[Piece]:
    pieces = [Piece("<bos>")]
    for turn in turns:
        role = "model" if turn.role == "assistant" else turn.role
        pieces.append(Piece(f"<start_of_turn>{role}\n"))
        pieces += [Piece(f"{turn.content.strip()}<end_of_turn>", role == "model"), Piece("\n")]
    return pieces


def zephyr(turns: list[Turn]) -> list[Piece]:
    pieces = [Piece("<s>")]  # not by the template: every text of this tokenizer begins with it
    for turn in turns:
        pieces += [
            Piece(f"<|{turn.role}|>\n"),
            Piece(f"{turn.content}</s>", turn.role == "assistant"),
            Piece("\n"),
        ]
    return pieces


def phi3(turns: list[Turn]) -> list[Piece]:
    pieces = []
    for turn in turns:
        pieces += [
            Piece(f"<|{turn.role}|>\n"),
            Piece(f"{turn.content}<|end|>", turn.role == "assistant"),
            Piece("\n"),
        ]
    return pieces


def vicuna(turns: list[Turn]) -> list[Piece]:
    system, rest = split(turns)
    pieces = [Piece("<s>"), Piece(f"{system or 'A chat between a curious user and an assistant.'} ")]
    for turn in rest:
        if turn.role == "user":
            pieces += [Piece(f"USER: {turn.content} "), Piece("ASSISTANT:")]
        else:
            pieces.append(Piece(f" {turn.content}</s>", True))
    return pieces


_SYSTEM = (
    "{% if messages[0].role == 'system' %}{% set told = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set told = '' %}{% set rest = messages %}{% endif %}"
)
_CHATML = (
    _SYSTEM + "<|im_start|>system\n{{ told or 'You are a helpful assistant.' }}<|im_end|>\n"
    "{% for m in rest %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '' }}{% endif %}"
)
_LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{{ '' }}{% endif %}"
)
_LLAMA2 = _SYSTEM + (
    "{% if told %}{% set told = '<<SYS>>\n' + told + '\n<</SYS>>\n\n' %}{% endif %}"
    "{% for m in rest %}{% if m.role == 'user' %}"
    "{{ bos_token }}[INST] {{ ((told if loop.first else '') + m.content) | trim }} [/INST]"
    "{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
_MISTRAL = _SYSTEM + (
    "{% set asked = rest | selectattr('role', 'equalto', 'user') | list | last %}"
    "{{ bos_token }}{% for m in rest %}{% if m.role == 'user' %}"
    "[INST] {% if told and loop.index0 >= (rest | length) - (2 if rest[-1].role == 'assistant' else 1) %}"
    "{{ told }}\n\n{% endif %}{{ m.content }}[/INST]"
    "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
_GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{{ '' }}{% endif %}"
)
_ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{{ '' }}{% endif %}"
)
# What it writes after the last turn is no part of an answer: the end of the text.
_PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{{ '' }}{% else %}{{ eos_token }}{% endif %}"
)
_VICUNA = _SYSTEM + (
    "{{ bos_token }}{{ told or 'A chat between a curious user and an assistant.' }} "
    "{% for m in rest %}{% if m.role == 'user' %}USER: {{ m.content }} {% else %}"
    "ASSISTANT: {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_LLAMA3_CONTROLS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_GEMMA_CONTROLS = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
_PHI3_CONTROLS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
FAMILIES = {
    family.name: family
    for family in (
        Family("chatml", _CHATML, ("<|im_start|>", "<|im_end|>"), None, "<|im_end|>", "<|im_end|>", chatml),
        Family("llama3", _LLAMA3, _LLAMA3_CONTROLS, "<|begin_of_text|>", "<|eot_id|>", "<|eot_id|>", llama3),
        Family("llama2", _LLAMA2, ("<s>", "</s>"), "<s>", "</s>", "</s>", llama2, "words"),
        Family(
            "mistral",
            _MISTRAL,
            ("<s>", "</s>", "[INST]", "[/INST]"),
            "<s>",
            "</s>",
            "</s>",
            mistral,
            "words",
        ),
        Family(
            "gemma", _GEMMA, _GEMMA_CONTROLS, "<bos>", "<eos>", "<end_of_turn>", gemma, "words", system=False
        ),
        Family("zephyr", _ZEPHYR, ("<s>", "</s>"), "<s>", "</s>", "</s>", zephyr),
        Family("phi3", _PHI3, _PHI3_CONTROLS, None, "<|endoftext|>", "<|end|>", phi3),
        Family("vicuna", _VICUNA, ("<s>", "</s>"), "<s>", "</s>", "</s>", vicuna, "words"),
    )
}
PAD = "<pad>"


def tokenizer_of(family: Family) -> PreTrainedTokenizerFast:
    """A tiny tokenizer that spells as the family's do, with its template and control tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_of_bytes(family) if family.spaces == "bytes" else _of_words(family),
        pad_token=PAD,
        bos_token=family.bos,
        eos_token=family.eos,
        additional_special_tokens=list(family.controls),
        chat_template=family.template,
        clean_up_tokenization_spaces=False,
    )


def _of_bytes(family: Family) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[PAD, *family.controls],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer=trainer)
    return tokenizer


def _of_words(family: Family) -> Tokenizer:
    """As Llama 2's and Gemma's: "▁" for a space, one before the text, a byte for a character it has no token for."""
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
    learnt.train_from_iterator(SENTENCES, trainer=trainer)
    model = json.loads(learnt.to_str())["model"]
    pieces = [PAD, *family.controls, *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    merges = [tuple(merge) for merge in model["merges"]]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def text_of(ids: list[int], tokenizer: PreTrainedTokenizerFast, family: Family) -> str:
    """What the ids spell, control tokens included, nothing stripped."""
    if family.spaces == "bytes":
        return tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    spelt = b""
    for token in tokenizer.convert_ids_to_tokens(ids):
        byte = _BYTE.fullmatch(token)
        spelt += bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
    return spelt.decode()
