"""Loading and saving: what each kind of base becomes, and what is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from aligner.errors import ModelError
from aligner.models.heads import RewardModel
from aligner.models.load import LoadedModel, load_model, load_reward_base, load_trained, save_model
from aligner.models.sources import weights_sha256
from aligner.recipe.model import ModelSpec
from tests.models.runs import LORA, Runs, logits, save_reward, write_adapter, write_base
from tests.models.test_adapters import IDS, stirred
from tests.tiny import tiny_model, tiny_tokenizer

ARCHITECTURES = ("llama", "gpt_neox", "qwen3")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root = tmp_path_factory.mktemp("runs")
    base = write_base(root / "base")
    return Runs(root, base, write_adapter(root / "sft", base))


def test_a_full_base_without_lora_trains_all_weights(runs: Runs):
    loaded = load_model(ModelSpec(base=str(runs.base)))
    assert not isinstance(loaded.model, PeftModel) and all(p.requires_grad for p in loaded.model.parameters())
    assert loaded.model.dtype == torch.float32 and loaded.model.config._attn_implementation == "eager"
    assert torch.equal(logits(loaded), tiny_model()(IDS).logits)
    assert loaded.tokenizer.padding_side == "right" and not loaded.merged_base


def test_run_folder_and_model_folder_are_the_same_base_and_the_identity_is_the_weights(runs: Runs):
    digest = weights_sha256(runs.base / "model")
    want = f"{runs.base.resolve()}/model#{digest[:12]}"
    assert load_trained(runs.base).identity == load_trained(runs.base / "model").identity == want
    assert load_trained(runs.sft).identity != want


def test_the_identity_changes_with_a_weight(tmp_path: Path):
    folder = write_base(tmp_path / "run") / "model"
    before = weights_sha256(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] += 1e-6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert weights_sha256(folder) != before


def test_an_adapter_goes_on_being_trained(runs: Runs):
    loaded = load_model(ModelSpec(base=str(runs.sft)))
    assert isinstance(loaded.model, PeftModel)
    trained = [name for name, weight in loaded.model.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    assert torch.equal(logits(loaded), logits(load_trained(runs.sft)))
    assert (logits(loaded) - tiny_model()(IDS).logits).abs().max() > 0.1


def test_a_merged_adapter_takes_a_new_one_and_saves_its_new_base(runs: Runs, tmp_path: Path):
    before = weights_sha256(runs.base / "model")
    loaded = load_model(ModelSpec(base=str(runs.sft), merge=True, lora=LORA))
    assert loaded.merged_base
    torch.testing.assert_close(logits(loaded), logits(load_trained(runs.sft)), atol=1e-5, rtol=1e-5)
    stirred(loaded.model, seed=1)
    save_model(loaded, tmp_path / "model", base_folder=tmp_path / "base")
    again = load_trained(tmp_path)
    torch.testing.assert_close(logits(again), logits(loaded), atol=1e-5, rtol=1e-5)
    assert again.base == str((tmp_path / "base").resolve())
    assert weights_sha256(runs.base / "model") == before


def test_a_merged_adapter_without_lora_is_a_full_model(runs: Runs, tmp_path: Path):
    loaded = load_model(ModelSpec(base=str(runs.sft), merge=True))
    assert not isinstance(loaded.model, PeftModel) and all(p.requires_grad for p in loaded.model.parameters())
    save_model(loaded, tmp_path / "model", base_folder=tmp_path / "base")
    torch.testing.assert_close(logits(load_trained(tmp_path)), logits(loaded), atol=1e-6, rtol=0)
    assert not (tmp_path / "base").exists()


def test_a_trained_model_is_frozen_and_in_eval_mode(runs: Runs):
    model = load_trained(runs.sft).model
    assert not model.training and not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_sft_adapter_goes_on_as_a_reward_adapter_with_equal_weights(tmp_path: Path, architecture: str):
    sft = write_adapter(tmp_path / "sft", write_base(tmp_path / "base", architecture))
    saved = load_file(sft / "model" / "adapter_model.safetensors")
    loaded = load_reward_base(ModelSpec(base=str(sft)))
    state = loaded.model.state_dict()
    for name, tensor in saved.items():
        assert torch.equal(state[name.replace(".weight", ".default.weight")], tensor)
    trained = {name for name, weight in loaded.model.named_parameters() if weight.requires_grad}
    assert len(trained) == len(saved) + 1 and any(".score." in name for name in trained)
    backbone = getattr(loaded.model.get_base_model(), loaded.model.get_base_model().base_model_prefix)
    policy = load_trained(sft).model.get_base_model()
    with torch.no_grad():
        hidden, want = backbone(IDS)[0], getattr(policy, policy.base_model_prefix)(IDS)[0]
    assert torch.equal(hidden, want)


def test_a_reward_base_merges_an_adapter_and_pads_with_a_token_of_its_own(runs: Runs):
    merged = load_reward_base(ModelSpec(base=str(runs.sft), merge=True))
    assert not isinstance(merged.model, PeftModel) and all(p.requires_grad for p in merged.model.parameters())
    policy = load_trained(runs.sft).model.get_base_model()
    with torch.no_grad():
        torch.testing.assert_close(merged.model.model(IDS)[0], policy.model(IDS)[0], atol=1e-5, rtol=1e-5)
    assert merged.model.config.pad_token_id == merged.tokenizer.pad_token_id != merged.tokenizer.eos_token_id


def test_grown_embeddings_are_saved_with_the_base_under_an_adapter(tmp_path: Path):
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    tokenizer.pad_token = None
    tokenizer.add_tokens(["<new>"])  # more tokens than the embeddings have rows, and no pad
    save_model(LoadedModel(model, tokenizer, ""), tmp_path / "base", base_folder=tmp_path)
    loaded = load_model(ModelSpec(base=str(tmp_path / "base"), lora=LORA))
    assert loaded.merged_base and loaded.model.get_input_embeddings().num_embeddings == len(loaded.tokenizer)
    save_model(loaded, tmp_path / "run" / "model", base_folder=tmp_path / "run" / "base")
    assert torch.equal(logits(load_trained(tmp_path / "run")), logits(loaded))


def refused(spec: ModelSpec) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(spec)
    return str(caught.value)


def test_what_the_base_cannot_do_is_refused_with_a_remedy(runs: Runs, tmp_path: Path):
    base, sft = str(runs.base), str(runs.sft)
    assert "set merge: true" in refused(ModelSpec(base=sft, lora=LORA))
    assert "leave merge out" in refused(ModelSpec(base=base, merge=True))
    assert "quantize: none" in refused(ModelSpec(base=sft, merge=True, lora=LORA, quantize="4bit"))
    assert "add model.lora" in refused(ModelSpec(base=base, quantize="8bit"))
    assert "leave revision out" in refused(ModelSpec(base=base, revision="main"))
    assert "no such folder" in refused(ModelSpec(base="./nowhere"))
    assert "is a file" in refused(ModelSpec(base=str(runs.base / "model" / "config.json")))
    assert "no config.json" in refused(ModelSpec(base=str(tmp_path)))
    (tmp_path / "recipe.yaml").touch()
    assert "run its recipe to the end first" in refused(ModelSpec(base=str(tmp_path)))
    shutil.copytree(runs.base, tmp_path / "quick" / "base")
    (tmp_path / "quick" / "recipe.yaml").write_text("stage: pipeline\n", encoding="utf-8")
    assert f"name one of its stages: {tmp_path / 'quick' / 'base'}" in refused(
        ModelSpec(base=str(tmp_path / "quick"))
    )
    assert "nobody/nothing" in refused(ModelSpec(base="nobody/nothing"))  # offline: the Hub cannot be asked


def test_missing_or_damaged_weights_are_refused(tmp_path: Path):
    folder = write_base(tmp_path / "run") / "model"
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    norm = tensors.pop("model.norm.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    assert "1 weights are missing, first model.norm.weight" in refused(ModelSpec(base=str(folder)))
    save_file(tensors | {"model.norm.weight": norm[:5].clone()}, weights, metadata={"format": "pt"})
    assert "cannot be loaded" in refused(ModelSpec(base=str(folder)))
    weights.write_bytes(b"not safetensors")
    assert "cannot be loaded" in refused(ModelSpec(base=str(folder)))
    weights.rename(folder / "pytorch_model.bin")
    assert "convert its .bin file" in refused(ModelSpec(base=str(folder)))


def test_an_adapter_without_its_base_says_where_to_mend_it(tmp_path: Path):
    base = write_base(tmp_path / "base")
    sft = write_adapter(tmp_path / "sft", base)
    base.rename(tmp_path / "moved")
    said = refused(ModelSpec(base=str(sft)))
    assert "adapter_config.json" in said and "base_model_name_or_path" in said and "no such folder" in said


def test_reward_models_and_language_models_are_not_taken_for_each_other(runs: Runs, tmp_path: Path):
    for name, lora in {"full": None, "adapter": LORA}.items():
        save_reward(tmp_path / name, ModelSpec(base=str(runs.base), lora=lora))
        assert "is a reward model" in refused(ModelSpec(base=str(tmp_path / name)))
        with pytest.raises(ModelError, match="is a reward model"):
            load_trained(tmp_path / name)
    with pytest.raises(ModelError, match="is not a reward model"):
        RewardModel.from_folder(runs.sft)


@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_quantised_backbones_take_an_adapter_or_go_on_with_one(tmp_path: Path, quantize: str):
    pytest.importorskip("bitsandbytes", reason="needs the [quant] extra")
    base = write_base(tmp_path / "base", hidden=64)  # 4bit works in blocks of 64
    sft = write_adapter(tmp_path / "sft", base)
    layer = {"8bit": "Linear8bitLt", "4bit": "Linear4bit"}[quantize]
    for spec in (ModelSpec(base=str(base), lora=LORA), ModelSpec(base=str(sft))):
        loaded = load_model(spec.model_copy(update={"quantize": quantize}))
        assert any(type(module).__name__ == layer for module in loaded.model.modules())
        assert all(
            "lora_" in name for name, weight in loaded.model.named_parameters() if weight.requires_grad
        )
        exact = logits(load_model(spec))
        gap = (logits(loaded) - exact).abs().mean() / exact.abs().mean()
        assert 0 < float(gap) < 0.3  # the same model, rounded


@pytest.mark.parametrize(("quantize", "alike"), [("8bit", 0.99), ("4bit", 0.99999)])
def test_gradients_go_through_a_quantised_backbone_in_eval_mode(tmp_path: Path, quantize: str, alike: float):
    bnb = pytest.importorskip("bitsandbytes", reason="needs the [quant] extra")
    base = write_base(tmp_path / "base", hidden=64)
    spec = ModelSpec(base=str(base), lora=LORA)
    rounded = stirred(load_model(spec.model_copy(update={"quantize": quantize})).model)
    plain = stirred(load_model(spec).model)
    with torch.no_grad():  # the oracle: a plain model of the rounded weights
        for name, module in rounded.named_modules():
            if isinstance(module, bnb.nn.Linear4bit):
                weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
                plain.get_submodule(name).weight.copy_(weight)
            elif isinstance(module, bnb.nn.Linear8bitLt):
                plain.get_submodule(name).weight.copy_(module.weight.data * module.weight.SCB[:, None] / 127)
    for model in (rounded, plain):
        model.eval()(IDS).logits.square().mean().backward()
    wanted = dict(plain.named_parameters())
    for name, weight in rounded.named_parameters():
        if weight.requires_grad:
            cosine = torch.nn.functional.cosine_similarity(
                weight.grad.flatten(), wanted[name].grad.flatten(), dim=0
            )
            assert float(cosine) > alike, name


def test_quantising_without_bitsandbytes_says_what_to_install(runs: Runs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'aligner[quant]'" in refused(
        ModelSpec(base=str(runs.base), lora=LORA, quantize="8bit")
    )
