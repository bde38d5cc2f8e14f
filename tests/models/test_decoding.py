"""Responses are read one way: to the end token, with nothing hidden before it."""

from __future__ import annotations

from aligner.models.decoding import decode_responses
from tests.tiny import tiny_tokenizer


def test_responses_end_at_the_end_token_and_show_control_tokens_before_it():
    tokenizer = tiny_tokenizer()
    eos, user = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|user|>")
    ids = tokenizer.encode(" Tom has the ball.", add_special_tokens=False)
    said = "Tom has the ball."
    rows = [[*ids, eos], [user, *ids, eos, *ids], [*ids, user, eos], ids, [eos], []]
    wanted = [said, f"<|user|> {said}", f"{said}<|user|>", said, "", ""]
    assert decode_responses(rows, tokenizer) == wanted
