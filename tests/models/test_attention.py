"""The choice of attention changes speed, never numbers."""

import torch

from aligner.models.attention import choose_attention
from tests.tiny import tiny_model, tiny_tokenizer


def test_short_contexts_on_a_cpu_use_plain_products_and_long_ones_do_not():
    model = tiny_model(tiny_tokenizer())
    choose_attention(model)
    assert model.config._attn_implementation == "eager"
    model.config.max_position_embeddings = 4096
    choose_attention(model)
    assert model.config._attn_implementation == "sdpa"


def test_both_give_the_same_logits_with_padding():
    model = tiny_model(tiny_tokenizer()).eval()
    ids_BT = torch.tensor([[0, 0, 9, 8, 7], [5, 6, 7, 8, 9]])
    mask_BT = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    logits = {}
    for name in ("eager", "sdpa"):
        model.set_attn_implementation(name)
        logits[name] = model(input_ids=ids_BT, attention_mask=mask_BT).logits[mask_BT.bool()]
    torch.testing.assert_close(logits["eager"], logits["sdpa"], rtol=1e-5, atol=1e-5)
