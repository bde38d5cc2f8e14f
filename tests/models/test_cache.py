"""The cache with room against transformers' own."""

import torch
from transformers import DynamicCache

from aligner.models.cache import RoomyLayer, read_prompts, roomy_cache
from tests.tiny import tiny_model


def new_tokens(seed: int, rows: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, width, 4, generator=generator), torch.randn(
        rows, 2, width, 3, generator=generator
    )


def test_it_holds_what_a_growing_one_holds():
    config = tiny_model().config
    roomy, growing = roomy_cache(config, 8), DynamicCache(config=config)
    assert all(type(layer) is RoomyLayer for layer in roomy.layers)
    for number, (rows, width) in enumerate(
        [(4, 5), (4, 1), (4, 2), (3, 1), (3, 6), (6, 1)]
    ):  # 16 in all: it grows
        if number in (3, 5):  # a row leaves; rows are doubled
            keep = torch.tensor([3, 0, 2] if number == 3 else [0, 0, 1, 1, 2, 2])
            roomy.batch_select_indices(keep)
            growing.batch_select_indices(keep)
        new = new_tokens(number, rows, width)
        for got, want in zip(roomy.update(*new, 0), growing.update(*new, 0), strict=True):
            assert torch.equal(got, want)
        assert roomy.get_seq_length() == growing.get_seq_length()
        assert roomy.get_mask_sizes(1, 0) == growing.get_mask_sizes(1, 0)


def test_a_token_does_not_copy_the_cache():
    layer = RoomyLayer(8)
    layer.update(*new_tokens(0, 2, 3))
    place = layer.keys.data_ptr()
    layer.update(*new_tokens(1, 2, 5))
    assert layer.keys.data_ptr() == place


def test_a_prompt_of_several_rows_is_read_once():
    model, seen = tiny_model(), []
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].tolist()), with_kwargs=True
    )
    prompts = [[7, 8, 9], [10, 11], [7, 8, 9], [7, 8, 9]]
    found, mask, last, cache = read_prompts(model, prompts, pad_id=0, room=4)
    handle.remove()
    assert seen == [[[7, 8, 9], [0, 10, 11]]]
    assert mask.tolist() == [[True] * 3, [False, True, True], [True] * 3, [True] * 3]
    assert last.flatten().tolist() == [2, 1, 2, 2] and cache.layers[0].keys.shape[0] == 4
    with torch.no_grad():
        for row, prompt in enumerate(prompts):
            torch.testing.assert_close(
                found.logits_BV[row], model(torch.tensor([prompt])).logits[0, -1], atol=1e-5, rtol=0
            )
