"""How many ids of a text are its prompt's, against the prompt tokenised for itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from aligner.data.ids import encode_texts, one_bos
from aligner.data.prefixes import encode_prefixed
from aligner.data.templates import BATCH, encode_conversations
from tests.data.chats import ORIGIN, chat
from tests.tiny import SENTENCES, tiny_tokenizer


class Shouting(PreTrainedTokenizerFast):
    """A class that changes the text before it is tokenised."""

    def __call__(self, text, **options):
        return super().__call__([each.upper() for each in text], **options)


def spaced(ask: AddedToken, kind: type[PreTrainedTokenizerFast] = PreTrainedTokenizerFast):
    """Every piece of text begins with a space of its own, as with Llama 2; `ask` is the token that asks."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"), normalizers.NFC()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.ByteFallback()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=600, special_tokens=special))
    tokenizer.add_special_tokens([ask])
    return kind(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


ASK = "<|ask|>"
TOKENIZERS = {
    "bytes": tiny_tokenizer(),
    "spaced": spaced(AddedToken(ASK, special=True)),
    "takes spaces": spaced(AddedToken(ASK, special=True, rstrip=True, lstrip=True)),
    "normalised": spaced(AddedToken(ASK, special=True, normalized=True)),
    "part of a longer one": spaced(AddedToken(ASK + "x", special=True)),
    "own class": spaced(AddedToken(ASK, special=True), Shouting),
}
for name in ("takes spaces", "part of a longer one"):
    TOKENIZERS[name].add_special_tokens({"additional_special_tokens": [AddedToken("<|ask|", special=True)]})
WORDS = st.sampled_from(
    [
        "cat",
        " ",
        "  ",
        "\n",
        "x",
        ">",
        "e\u0301",
        "\u0301",
        "漢",
        "🙂",
        ASK,
        "<|ask|",
        "<s>",
        "</s>",
        "<|assistant|>",
    ]
)
TEXTS = st.lists(WORDS, max_size=6).map("".join)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(
    start=TEXTS,
    ask=st.sampled_from(["", ASK, "<|assistant|>", "<s>", f"{ASK}\n", f"{ASK}bot\n\n"]),
    rest=TEXTS,
)
def test_a_prompt_counts_the_ids_that_it_has_alone(name, start, ask, rest):
    tokenizer, prompt = TOKENIZERS[name], start + ask
    whole, alone = (
        one_bos(encode_texts([text], tokenizer)[0], tokenizer) for text in (prompt + rest, prompt)
    )
    (found,) = encode_prefixed([prompt + rest], [[prompt]], tokenizer)
    assert found.ids == whole
    assert found.lengths == [len(alone) if whole[: len(alone)] == alone else None]


def test_settings_of_a_tokenizer_are_not_those_of_its_last_user():
    tokenizer = tiny_tokenizer()
    (expected,) = encode_prefixed(["a cat sat<|assistant|>"], [[]], tokenizer)
    tokenizer(["a", "a cat"], padding=True, truncation=True, max_length=2, split_special_tokens=True)
    assert encode_prefixed(["a cat sat<|assistant|>"], [[]], tokenizer) == [expected]


def test_conversations_of_several_batches_keep_their_order():
    tokenizer = tiny_tokenizer()
    rows = [chat(f"ask {number}", f"say {number}") for number in range(2 * BATCH + 3)]
    together = encode_conversations(rows, tokenizer, origins=[ORIGIN] * len(rows))
    for number in (0, BATCH - 1, BATCH, 2 * BATCH, len(rows) - 1):
        assert [together[number]] == encode_conversations([rows[number]], tokenizer, origins=[ORIGIN])
