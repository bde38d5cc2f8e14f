"""The one loader: Hub id, folder or run in; model and tokenizer out. And the way back to disk."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from aligner.errors import ModelError, Problem
from aligner.models.adapters import (
    ADAPTER_WEIGHTS,
    Task,
    attach_lora,
    backbone_tensors,
    continue_adapter,
    merge_adapter,
)
from aligner.models.attention import choose_attention
from aligner.models.sources import (
    TOKENIZER_CONFIG,
    Source,
    base_source,
    check_harmless,
    loading,
    resolve_source,
)
from aligner.models.tokenizer import check_tokenizer, ensure_end, ensure_pad, ensure_template
from aligner.recipe.model import ModelSpec

Quantize = Literal["none", "8bit", "4bit"]


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for use, and what it is.

    `identity` names the weights it was loaded from, `base` (with `base_revision`) the full model under an adapter, as
    PEFT will look it up. `merged_base`: the weights under the adapter exist nowhere on disk yet (an adapter was merged
    into them, or their embeddings grew), so `save_model` writes them too.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    identity: str
    base: str = ""
    base_revision: str | None = None
    merged_base: bool = False


def load_model(spec: ModelSpec) -> LoadedModel:
    """A causal language model to train: all weights, a new adapter, or the base's own adapter gone on with.

    fp32 weights on CUDA where there is one, else on the CPU; attention through SDPA. Seed torch before: a new adapter
    is drawn from its global generator.
    """
    return _load_for_training(spec, "CAUSAL_LM")


def load_reward_base(spec: ModelSpec) -> LoadedModel:
    """The same with a score head (one number a sequence) in place of the language-model head; LoRA trains the head too.

    A language model's adapter goes on as the reward model's, its weights copied by name.
    """
    return _load_for_training(spec, "SEQ_CLS")


def load_trained(path_or_id: str | Path, revision: str | None = None) -> LoadedModel:
    """A language model as it was trained, for evaluation: frozen, in eval mode, its adapter on."""
    return _load_finished(resolve_source(str(path_or_id), revision), "CAUSAL_LM")


def load_scorer(path_or_id: str | Path, revision: str | None = None) -> LoadedModel:
    """A reward model as it was trained, for scoring: frozen, in eval mode, its adapter on."""
    return _load_finished(resolve_source(str(path_or_id), revision), "SEQ_CLS")


def _load_for_training(spec: ModelSpec, task: Task) -> LoadedModel:
    source = resolve_source(spec.base, spec.revision)
    check_harmless(source)
    _check_plan(source, spec, task)
    base = base_source(source) if source.is_adapter else source
    model: PreTrainedModel | PeftModel = _load_plain(base, task, spec.quantize)
    tokenizer = load_tokenizer(source, base)
    grown = ensure_pad(tokenizer, model)
    if source.is_adapter:
        model = _put_on(model, source, task)
    if spec.merge:
        model = merge_adapter(model)
    if spec.lora:
        model = attach_lora(model, spec.lora, task)
    check_tokenizer(tokenizer)
    return LoadedModel(
        model, tokenizer, source.identity, base.name, base.revision, merged_base=spec.merge or grown
    )


def _check_plan(source: Source, spec: ModelSpec, task: Task) -> None:
    """What the base is must fit what the recipe wants of it."""
    problems = []
    if source.is_adapter and spec.lora and not spec.merge:
        remedy = (
            "leave lora out to go on with its adapter, or set merge: true to fold it in and start a new one"
        )
        problems.append(Problem("model.lora", f"{spec.base} is an adapter already", remedy))
    if spec.merge and not source.is_adapter:
        problems.append(Problem("model.merge", f"{spec.base} has no adapter to merge", "leave merge out"))
    if spec.merge and spec.quantize != "none":
        remedy = "set quantize: none, or merge in a run of its own first"
        problems.append(
            Problem("model.quantize", "an adapter cannot be merged into quantised weights", remedy)
        )
    if spec.quantize != "none" and not (spec.lora or source.is_adapter):
        fault = "quantised weights cannot be trained themselves"
        problems.append(Problem("model.quantize", fault, "add model.lora, or set quantize: none"))
    if source.is_scorer and task == "CAUSAL_LM":
        problems.append(_not_a_language_model(spec.base))
    if problems:
        raise ModelError(problems)


def _not_a_language_model(name: str) -> Problem:
    return Problem(name, "is a reward model: it gives scores, not text", "name the model it was trained from")


def check_task(source: Source, task: Task) -> None:
    """ModelError where a finished model is not of the kind that is asked for."""
    if source.is_scorer and task == "CAUSAL_LM":
        raise ModelError(_not_a_language_model(source.name))
    if not source.is_scorer and task == "SEQ_CLS":
        raise ModelError(Problem(source.name, "is not a reward model", "name the run of a reward stage"))


def _load_finished(source: Source, task: Task) -> LoadedModel:
    check_harmless(source)
    check_task(source, task)
    base = base_source(source) if source.is_adapter else source
    model: PreTrainedModel | PeftModel = _load_plain(base, task, "none")
    tokenizer = load_tokenizer(source, base)
    ensure_pad(tokenizer, model)
    if source.is_adapter:
        with loading(source):
            model = PeftModel.from_pretrained(model, source.name, revision=source.revision)
    check_tokenizer(tokenizer)
    model.eval().requires_grad_(False)
    return LoadedModel(model, tokenizer, source.identity, base.name, base.revision)


def _put_on(model: PreTrainedModel, source: Source, task: Task) -> PeftModel:
    """The source's adapter over its base, trainable; from another task only the LoRA weights are taken over."""
    weights = source.file(ADAPTER_WEIGHTS)
    if task == "SEQ_CLS" and not source.is_scorer and weights is not None:
        return continue_adapter(model, source.adapter_config, weights, task)
    with loading(source):
        return PeftModel.from_pretrained(model, source.name, revision=source.revision, is_trainable=True)


def _load_plain(source: Source, task: Task, quantize: Quantize) -> PreTrainedModel:
    """The full model of a source with the head the task needs; every weight but a new score head must be there."""
    check_harmless(source)
    auto = AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModelForSequenceClassification
    head = {} if task == "CAUSAL_LM" else {"num_labels": 1}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    quantised = (
        {}
        if quantize == "none"
        else {"quantization_config": _quantisation(quantize), "device_map": {"": device}}
    )
    with loading(source), quiet(bars=not source.is_folder):
        model, report = auto.from_pretrained(
            source.name,
            revision=source.revision,
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **head,
            **quantised,
        )
    new_head = task == "SEQ_CLS" and not source.is_scorer
    missing = sorted(name for name in report["missing_keys"] if not (new_head and name.startswith("score.")))
    if missing:
        fault = f"{len(missing)} weights are missing, first {missing[0]}"
        raise ModelError(Problem(source.name, fault, "use a folder or id that holds the whole model"))
    model = _trainable_when_quantised(model) if quantised else model.to(device)
    choose_attention(model)
    return model


def _trainable_when_quantised(model: PreTrainedModel) -> PreTrainedModel:
    """Without bitsandbytes' bfloat16 kernel of new CPUs, which a layer takes in eval mode and which has no gradient."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def _quantisation(quantize: Quantize) -> BitsAndBytesConfig:
    """bitsandbytes' settings; 4bit is NF4 with double quantisation (Dettmers et al. 2023, arXiv:2305.14314)."""
    if importlib.util.find_spec("bitsandbytes") is None:
        remedy = "pip install 'aligner[quant]', or set quantize: none"
        raise ModelError(
            Problem("model.quantize", f"{quantize} needs bitsandbytes, which is not installed", remedy)
        )
    # It says of every layer, at every pass, that it computes in float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
    )


def load_tokenizer(source: Source, base: Source) -> PreTrainedTokenizerBase:
    """The adapter's own tokenizer where it has one, else its base's; padding on the right."""
    place = source if source.file(TOKENIZER_CONFIG) else base
    with loading(place):
        tokenizer = AutoTokenizer.from_pretrained(
            place.name, revision=place.revision, trust_remote_code=False, padding_side="right"
        )
    ensure_template(tokenizer)
    ensure_end(tokenizer)
    return tokenizer


def save_model(loaded: LoadedModel, folder: Path, *, base_folder: Path) -> None:
    """Write `folder` so that plain AutoModel... or PeftModel.from_pretrained load it: weights, tokenizer, template.

    For an adapter over weights that are on no disk yet, those are written to `base_folder` first. The adapter names its
    base by an absolute path or a Hub id.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        if isinstance(loaded.model, PeftModel):
            _save_adapter(loaded, loaded.model, folder, base_folder)
        else:
            loaded.model.save_pretrained(folder)
        _save_companions(loaded, folder)


def _save_adapter(loaded: LoadedModel, model: PeftModel, folder: Path, base_folder: Path) -> None:
    config = model.peft_config[model.active_adapter]
    config.base_model_name_or_path, config.revision = loaded.base, loaded.base_revision
    if loaded.merged_base:
        model.get_base_model().save_pretrained(base_folder, state_dict=backbone_tensors(model))
        _save_companions(loaded, base_folder)
        config.base_model_name_or_path, config.revision = str(base_folder.resolve()), None
    # False: PEFT would otherwise ask the Hub whether the embeddings changed. They do so in the base alone.
    model.save_pretrained(folder, selected_adapters=[model.active_adapter], save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty card; the publish stage writes a real one


def _save_companions(loaded: LoadedModel, folder: Path) -> None:
    """Tokenizer with its template, and for language models where generation ends."""
    loaded.tokenizer.save_pretrained(folder)
    base = loaded.model.get_base_model() if isinstance(loaded.model, PeftModel) else loaded.model
    if base.can_generate():
        ends = base.generation_config.eos_token_id
        own = set(ends) if isinstance(ends, list) else {ends} - {None}
        ids = sorted(own | {loaded.tokenizer.eos_token_id})
        GenerationConfig(
            bos_token_id=loaded.tokenizer.bos_token_id,
            eos_token_id=ids if len(ids) > 1 else ids[0],
            pad_token_id=loaded.tokenizer.pad_token_id,
        ).save_pretrained(folder)


@contextmanager
def quiet(*, bars: bool = False) -> Iterator[None]:
    """transformers says only errors, and shows bars only where something may be downloaded."""
    verbosity, had_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    if not bars:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()
