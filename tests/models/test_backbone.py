"""One backbone under several roles: the same tensors, the same numbers, and a reason where it cannot be."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from aligner.models.backbone import Backbone, backbone_of, bare
from aligner.models.heads import RewardModel, RewardStats, ValueHead, write_stats
from aligner.models.load import LoadedModel, load_model
from aligner.models.scoring import Scoring
from aligner.recipe.model import LoraSpec, ModelSpec
from aligner.rl.actors import Drawing, LanguageActor
from tests.models.runs import LORA, SEQUENCES, save_reward, write_adapter, write_base
from tests.models.test_adapters import IDS, stirred
from tests.tiny import tiny_model

PROMPTS = [2] * len(SEQUENCES)
ARCHITECTURES = ("llama", "qwen3", "gpt_neox")


def gains(base) -> LoraSpec:
    """An adapter that also trains the last norm."""
    names = load_file(base / "model" / "model.safetensors")
    last = "gpt_neox.final_layer_norm" if "gpt_neox.final_layer_norm.weight" in names else "model.norm"
    return LoraSpec(rank=4, alpha=8, modules_to_save=[last])


@pytest.fixture(scope="module", params=ARCHITECTURES)
def base(request, tmp_path_factory):
    return write_base(tmp_path_factory.mktemp(request.param) / "base", request.param, hidden=64)


def policy_and_backbone(spec: ModelSpec) -> tuple[LoadedModel, Backbone]:
    """A policy that says something, and what its reference stands on."""
    loaded = load_model(spec)
    head = ValueHead(loaded.model.config.get_text_config().hidden_size)
    actor = LanguageActor(loaded.model, head, Drawing(8, 1.0, eos_id=2, pad_id=0))
    reference = actor.reference()
    return loaded, backbone_of(reference.model, loaded)


def same_tensors(a: torch.nn.Module, b: torch.nn.Module) -> set[int]:
    """Addresses of the weights that both have."""
    return {w.data_ptr() for w in a.parameters()} & {w.data_ptr() for w in b.parameters()}


def assert_shared(loaded: LoadedModel, backbone: Backbone, run) -> RewardModel:
    """The reward model has the policy's frozen weights and scores as it does alone, bit by bit."""
    shared, alone = RewardModel.from_folder(run, backbone), RewardModel.from_folder(run)
    assert shared.apart == "" and alone.apart
    want = alone.score(SEQUENCES, PROMPTS)
    assert torch.equal(shared.score(SEQUENCES, PROMPTS), want) and want.std() > 0.01
    frozen = [w for w in loaded.model.parameters() if not w.requires_grad]
    assert same_tensors(shared.model, loaded.model) == {w.data_ptr() for w in frozen} - lm_heads(loaded)
    assert not same_tensors(alone.model, loaded.model)
    own = sum(
        w.numel() for w in shared.model.parameters() if w.data_ptr() not in {f.data_ptr() for f in frozen}
    )
    assert own < 0.3 * sum(w.numel() for w in loaded.model.parameters())
    assert not any(w.requires_grad for w in shared.model.parameters())
    return shared


def lm_heads(loaded: LoadedModel) -> set[int]:
    """An untied output layer, which a scorer has no use for."""
    model = loaded.model.get_base_model()
    pair = (model.get_output_embeddings().weight, model.get_input_embeddings().weight)
    return {pair[0].data_ptr()} - {pair[1].data_ptr()}


def test_an_adapter_over_the_policys_base_shares_its_weights(base, tmp_path):
    save_reward(tmp_path / "reward", ModelSpec(base=str(base), lora=LORA))
    loaded, backbone = policy_and_backbone(ModelSpec(base=str(base), lora=gains(base)))
    stirred(loaded.model)  # whatever the policy learns, its backbone stays
    assert_shared(loaded, backbone, tmp_path / "reward")


def test_a_policy_that_goes_on_with_an_adapter_shares_what_is_under_it(base, tmp_path):
    sft = write_adapter(tmp_path / "sft", base)
    save_reward(tmp_path / "reward", ModelSpec(base=str(sft)))  # goes on with it, too
    loaded, backbone = policy_and_backbone(ModelSpec(base=str(sft)))
    assert_shared(loaded, backbone, tmp_path / "reward")


def test_both_over_the_same_merged_adapter_share_although_it_lies_in_the_reward_run_alone(base, tmp_path):
    sft = write_adapter(tmp_path / "sft", base)
    save_reward(tmp_path / "reward", ModelSpec(base=str(sft), merge=True, lora=LORA))
    assert (tmp_path / "reward" / "base" / "model.safetensors").exists()
    loaded, backbone = policy_and_backbone(ModelSpec(base=str(sft), merge=True, lora=gains(base)))
    assert_shared(loaded, backbone, tmp_path / "reward")


def test_the_pad_tokens_row_may_differ_since_nothing_reads_it(base, tmp_path):
    sft = write_adapter(tmp_path / "sft", base)
    save_reward(tmp_path / "reward", ModelSpec(base=str(sft), merge=True, lora=LORA))
    path = tmp_path / "reward" / "base" / "model.safetensors"
    weights = load_file(path)
    (name,) = [name for name in weights if "embed_tokens" in name or "embed_in" in name]
    weights[name][0] = 7.0  # as where each run adds a pad token of its own
    save_file(weights, path, {"format": "pt"})
    loaded, backbone = policy_and_backbone(ModelSpec(base=str(sft), merge=True, lora=LORA))
    assert loaded.tokenizer.pad_token_id == 0
    assert_shared(loaded, backbone, tmp_path / "reward")
    weights[name][5] += 1e-3
    save_file(weights, path, {"format": "pt"})
    assert RewardModel.from_folder(tmp_path / "reward", backbone).apart.endswith(f"differs in {name}")


def test_a_base_that_was_moved_is_known_by_its_weights(base, tmp_path):
    save_reward(tmp_path / "reward", ModelSpec(base=str(base), lora=LORA))
    shutil.copytree(base, tmp_path / "moved")
    loaded, backbone = policy_and_backbone(ModelSpec(base=str(tmp_path / "moved"), lora=LORA))
    assert_shared(loaded, backbone, tmp_path / "reward")


def test_a_likelihood_of_the_same_base_is_shared_with_its_output_layer(base, tmp_path):
    sft = write_adapter(tmp_path / "judge", base)
    write_stats(sft / "model", RewardStats(-5.0, 2.0, 10, Scoring("likelihood", 0.1)))
    loaded, backbone = policy_and_backbone(ModelSpec(base=str(base), lora=LORA))
    shared, alone = RewardModel.from_folder(sft, backbone), RewardModel.from_folder(sft)
    assert shared.apart == "" and torch.equal(
        shared.score(SEQUENCES, PROMPTS), alone.score(SEQUENCES, PROMPTS)
    )
    frozen = {w.data_ptr() for w in loaded.model.parameters() if not w.requires_grad}
    assert same_tensors(shared.model, loaded.model) == frozen


def test_under_full_fine_tuning_the_references_weights_are_shared(base, tmp_path):
    save_reward(tmp_path / "reward", ModelSpec(base=str(base), lora=LORA))
    loaded, backbone = policy_and_backbone(ModelSpec(base=str(base)))
    shared = RewardModel.from_folder(tmp_path / "reward", backbone)
    want = RewardModel.from_folder(tmp_path / "reward").score(SEQUENCES, PROMPTS)
    assert shared.apart == "" and same_tensors(shared.model, backbone.model)
    with torch.no_grad():
        for weight in loaded.model.parameters():
            weight.add_(0.1)  # the policy moves; nobody else does
    assert torch.equal(shared.score(SEQUENCES, PROMPTS), want)


def test_what_stands_on_other_weights_is_a_model_of_its_own_with_the_reason(base, tmp_path):
    def apart(run):
        model = RewardModel.from_folder(run, backbone)
        assert not same_tensors(model.model, backbone.model)
        assert torch.equal(
            model.score(SEQUENCES, PROMPTS), RewardModel.from_folder(run).score(SEQUENCES, PROMPTS)
        )
        return model.apart

    _, backbone = policy_and_backbone(ModelSpec(base=str(base), lora=LORA))
    save_reward(tmp_path / "whole", ModelSpec(base=str(base)))
    assert apart(tmp_path / "whole") == "it was trained whole"
    other = tmp_path / "other"
    shutil.copytree(base, other)
    weights = load_file(other / "model" / "model.safetensors")
    norm = f"{gains(base).modules_to_save[0]}.weight"
    weights[norm][0] += 1e-6
    save_file(weights, other / "model" / "model.safetensors", {"format": "pt"})
    save_reward(tmp_path / "reward", ModelSpec(base=str(other), lora=LORA))
    assert apart(tmp_path / "reward").endswith(f"which differs in {norm}")
    del weights[norm]
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    save_file(weights, fewer / "model.safetensors", {"format": "pt"})
    assert backbone._first_other(fewer, "SEQ_CLS") == norm


def test_the_bare_model_is_the_base_whatever_lies_over_it():
    base = tiny_model()
    want = base(IDS).logits.detach().clone()
    loaded = LoadedModel(base, None, "")
    from aligner.models.adapters import attach_lora

    adapted = stirred(attach_lora(base, LoraSpec(rank=4, modules_to_save=["model.norm"]), "CAUSAL_LM"))
    plain = bare(adapted)
    with torch.no_grad():
        assert torch.equal(plain(IDS).logits, want) and not torch.equal(adapted(IDS).logits, want)
    assert not hasattr(plain, "peft_config") and type(plain) is type(loaded.model)
    assert {w.data_ptr() for w in plain.parameters()} <= {w.data_ptr() for w in adapted.parameters()}
