"""Small architectures: shapes, tying, initial scale."""

import logging
import math

import pytest
import torch
from transformers.utils import logging as transformers_logging

from aligner.errors import ModelError
from aligner.models.small import build_small, small_shape
from aligner.recipe.model import ArchitectureSpec
from tests.tiny import tiny_model, tiny_tokenizer

ARCHITECTURES = ("llama", "gpt_neox", "qwen3")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [True, False])
def test_every_architecture_has_the_shape_asked_for(architecture: str, tied: bool):
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, architecture=architecture, tie_embeddings=tied, layers=3, hidden=16)
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert embeddings.shape == head.shape == (len(tokenizer), 16)
    assert (embeddings.data_ptr() == head.data_ptr()) == tied
    assert (model.config.num_hidden_layers, model.config.max_position_embeddings) == (3, 512)
    assert (model.config.pad_token_id, model.config.eos_token_id, model.config.bos_token_id) == (0, 2, 1)
    assert model.dtype == torch.float32 and model.config._attn_implementation == "eager"
    logits = model(torch.tensor([[1, 5, 9]])).logits
    assert logits.shape == (1, 3, len(tokenizer)) and logits.isfinite().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_start_at_small_init_and_the_first_loss_is_near_uniform(architecture: str):
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, architecture=architecture, hidden=64)
    assert model.get_input_embeddings().weight.std().item() == pytest.approx(
        math.sqrt(2 / (5 * 64)), rel=0.03
    )
    ids = torch.randint(6, 384, (4, 64), generator=torch.Generator().manual_seed(0))
    assert model(ids, labels=ids).loss.item() == pytest.approx(math.log(384), abs=0.6)


def test_grouped_heads_are_built_where_the_architecture_has_them_and_refused_elsewhere():
    tokenizer = tiny_tokenizer()
    spec = {"hidden_size": 32, "heads": 4, "kv_heads": 2, "layers": 1}
    for architecture in ("llama", "qwen3"):
        model = build_small(ArchitectureSpec(architecture=architecture, **spec), tokenizer)
        assert model.model.layers[0].self_attn.k_proj.out_features == 16
    with pytest.raises(ModelError, match="gpt_neox has no grouped"):
        build_small(ArchitectureSpec(architecture="gpt_neox", **spec), tokenizer)


def test_one_seed_gives_one_model_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, second, other = tiny_model(seed=1), tiny_model(seed=1), tiny_model(seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
    assert not torch.equal(first.get_input_embeddings().weight, other.get_input_embeddings().weight)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_shape_has_the_modules_of_the_model_and_no_weights_and_says_nothing(architecture: str):
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    transformers_logging.add_handler(handler)
    try:
        shape = small_shape(ArchitectureSpec(architecture=architecture))
    finally:
        transformers_logging.remove_handler(handler)
    model = build_small(ArchitectureSpec(architecture=architecture), tiny_tokenizer())
    assert [name for name, _ in shape.named_modules()] == [name for name, _ in model.named_modules()]
    assert all(weight.is_meta for weight in shape.parameters())
    assert said == []
