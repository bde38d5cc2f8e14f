"""LoRA: what is adapted, what is trained, what stays as it was."""

import pytest
import torch
from peft import PeftModel
from torch import nn

from aligner.errors import ModelError
from aligner.models.adapters import (
    attach_lora,
    backbone_tensors,
    merge_adapter,
    trainable_parameters,
)
from aligner.recipe.model import LoraSpec
from tests.tiny import tiny_model

ARCHITECTURES = ("llama", "gpt_neox", "qwen3")
IDS = torch.randint(6, 384, (3, 11), generator=torch.Generator().manual_seed(0))


def stirred(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """LoRA starts as no change at all; this gives every trained weight something to say."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in trainable_parameters(model):
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [True, False])
def test_all_linear_adapts_every_linear_layer_but_the_head(architecture: str, tied: bool):
    model = tiny_model(architecture=architecture, tie_embeddings=tied)
    head = model.get_output_embeddings()
    linear = {
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head
    }
    adapted = attach_lora(model, LoraSpec(rank=2), "CAUSAL_LM")
    names = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert {name.removeprefix("base_model.model.").split(".lora_")[0] for name in names} == linear
    assert len(names) == 2 * len(linear)


@torch.no_grad()
def test_a_new_adapter_changes_nothing_and_one_switched_off_is_the_base():
    base = tiny_model()
    want = base(IDS).logits.clone()
    model = attach_lora(base, LoraSpec(rank=4, alpha=8), "CAUSAL_LM")
    assert torch.equal(model(IDS).logits, want)
    stirred(model)
    assert (model(IDS).logits - want).abs().max() > 0.1
    with model.disable_adapter():
        assert torch.equal(model(IDS).logits, want)


@torch.no_grad()
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_merged_is_adapter_on(architecture: str):
    model = stirred(
        attach_lora(tiny_model(architecture=architecture), LoraSpec(rank=4, alpha=16), "CAUSAL_LM")
    )
    want = model(IDS).logits.clone()
    merged = merge_adapter(model)
    assert not isinstance(merged, PeftModel) and not [name for name in merged.state_dict() if "lora" in name]
    torch.testing.assert_close(merged(IDS).logits, want, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_scale_is_alpha_over_rank():
    model = stirred(attach_lora(tiny_model(), LoraSpec(rank=4, alpha=12, targets=["q_proj"]), "CAUSAL_LM"))
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * 12 / 4
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer(x), x @ (layer.base_layer.weight + update).T, atol=1e-5, rtol=1e-5)


def test_training_the_adapter_leaves_every_base_weight_as_it_was():
    base = tiny_model()
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    model = attach_lora(base, LoraSpec(rank=2), "CAUSAL_LM")
    optimiser = torch.optim.AdamW(trainable_parameters(model), lr=1e-2, weight_decay=0.1)
    first = None
    for _ in range(3):
        loss = model(IDS, labels=IDS).loss
        first = first or loss.item()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss.item() < first
    after = backbone_tensors(model)
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_targets_that_match_nothing_are_refused_with_the_nearest_name():
    with pytest.raises(ModelError) as caught:
        attach_lora(tiny_model(), LoraSpec(targets=["q_porj", "v_proj", "zzz"]), "CAUSAL_LM")
    said = str(caught.value)
    assert 'no layer is named "q_porj"' in said and 'did you mean "q_proj"?' in said
    assert 'no layer is named "zzz"' in said and "valid: down_proj, embed_tokens" in said
    assert "v_proj" not in said.split("valid")[0]


def test_modules_to_save_are_trained_whole_and_come_back_with_the_adapter(tmp_path):
    spec = LoraSpec(rank=2, modules_to_save=["model.norm"])
    model = attach_lora(tiny_model(), spec, "CAUSAL_LM")
    whole = [n for n, w in model.named_parameters() if w.requires_grad and "lora_" not in n]
    assert whole == ["base_model.model.model.norm.modules_to_save.default.weight"]
    with torch.no_grad():
        dict(model.named_parameters())[whole[0]].mul_(3.0)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_model(), tmp_path)
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    assert not torch.allclose(again(IDS).logits, tiny_model()(IDS).logits)
    torch.testing.assert_close(merge_adapter(model)(IDS).logits, again(IDS).logits)


def test_a_module_to_save_is_taken_by_whole_names_and_the_recipe_stays_as_it_is():
    spec = LoraSpec(rank=2, modules_to_save=["norm"])
    for task in ("SEQ_CLS", "CAUSAL_LM"):  # PEFT puts a score head into the list it is given
        config = attach_lora(tiny_model(), spec, task).peft_config["default"]
        assert "model.norm" in config.modules_to_save and not [
            n for n in config.modules_to_save if "layernorm" in n
        ]
    assert spec.modules_to_save == ["norm"]


def test_modules_to_save_that_match_nothing_are_refused():
    for name in ("model.nrm", ""):
        with pytest.raises(ModelError, match=f'no module is named "{name}"'):
            attach_lora(tiny_model(), LoraSpec(modules_to_save=[name]), "CAUSAL_LM")


def test_a_dotted_target_picks_one_layer():
    model = attach_lora(tiny_model(), LoraSpec(rank=2, targets=["layers.1.mlp.up_proj"]), "CAUSAL_LM")
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert len(names) == 2 and all("layers.1.mlp.up_proj" in name for name in names)
