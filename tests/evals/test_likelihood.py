"""Log-probabilities in padded batches against one plain forward pass a sequence; bits per byte from its definition."""

from __future__ import annotations

import math

import pytest
import torch

from aligner.data.rows import Document, Origin, Turn
from aligner.errors import DataError
from aligner.evals.likelihood import answer_logprobs, token_logprobs
from aligner.evals.perplexity import bits_per_byte
from tests.tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(TOKENIZER)
NOWHERE = Origin("test", 1)


def alone(ids: list[int], temperature: float = 1.0) -> list[float]:
    """log p of each token but the first, from one unbatched forward pass and the definition of softmax."""
    with torch.no_grad():
        logits = MODEL(input_ids=torch.tensor([ids])).logits[0].double() / temperature
    probabilities = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    return [math.log(probabilities[t, ids[t + 1]]) for t in range(len(ids) - 1)]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_padded_batches_say_what_each_sequence_says_alone(temperature: float):
    sequences = [[1, 20, 30], [1, 40], [1, 50, 60, 70, 80, 90, 100], [1], [1, 9, 8, 7, 6]]
    found = token_logprobs(MODEL, sequences, batch_size=2, pad_id=0, temperature=temperature)
    for ids, row in zip(sequences, found, strict=True):
        assert row.tolist() == pytest.approx(alone(ids, temperature), abs=1e-5)


def test_answer_logprobs_leave_the_prompt_out():
    sequences = [[1, 20, 30, 40, 2], [1, 50, 2]]
    found = answer_logprobs(MODEL, sequences, [3, 1], batch_size=8, pad_id=0)
    assert found == pytest.approx([sum(alone(sequences[0])[2:]), sum(alone(sequences[1]))], abs=1e-5)


def ids_of(text: str) -> list[int]:
    return [TOKENIZER.bos_token_id, *TOKENIZER.encode(text, add_special_tokens=False)]


def test_bits_per_byte_is_the_mean_over_the_bytes_of_all_documents():
    texts = ["The cat of Mia is red.", "Größe: 12 + 34 = 46."]
    nats = -sum(sum(alone(ids_of(text))) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    assert size == 22 + 22  # two letters take two bytes each
    found = bits_per_byte(
        MODEL, TOKENIZER, [Document(NOWHERE, text) for text in texts], block_length=64, batch_size=1
    )
    assert found.bits == pytest.approx(nats / math.log(2) / size, rel=1e-6)
    assert found.nats == pytest.approx(nats, rel=1e-6)
    assert (found.bytes, found.tokens) == (size, sum(len(ids_of(text)) - 1 for text in texts))


def test_long_documents_are_read_in_windows_that_predict_every_token_once():
    text = "Who has the ball? Tom has the ball. " * 3
    ids = ids_of(text)
    block = 8
    windows = [ids[at : at + block + 1] for at in range(0, len(ids) - 1, block)]
    found = bits_per_byte(MODEL, TOKENIZER, [Document(NOWHERE, text)], block_length=block, batch_size=4)
    assert found.nats == pytest.approx(-sum(sum(alone(window)) for window in windows), rel=1e-6)
    assert found.tokens == len(ids) - 1


def test_a_conversation_counts_the_bytes_of_what_is_said():
    turns = (Turn("user", "Who has the ball?"), Turn("assistant", "Tom has the ball."))
    found = bits_per_byte(MODEL, TOKENIZER, [Document(NOWHERE, turns=turns)], block_length=64, batch_size=1)
    assert found.bytes == 34
    said = [" Who has the ball?", " Tom has the ball."]  # ids_of puts one bos in front
    control_tokens = 2  # <|user|>, <|assistant|>; bos is given, the last eos is not asked
    assert found.tokens == sum(len(ids_of(text)) - 1 for text in said) + control_tokens


def test_no_text_is_an_error():
    with pytest.raises(DataError, match="no text"):
        bits_per_byte(MODEL, TOKENIZER, [], block_length=8, batch_size=1)
