"""Which model, and how much of it is trained."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec


class LoraSpec(Spec):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) through PEFT."""

    rank: int = Field(16, gt=0, description="rank r of the update matrices")
    alpha: float = Field(32, gt=0, description="scale: the update is multiplied by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="module names to adapt; all-linear = every linear layer but the head"
    )
    modules_to_save: list[str] = Field(
        default_factory=list,
        description="modules trained whole and saved with the adapter, by how their paths end: model.norm, say",
    )


class FrozenModelSpec(Spec):
    """A model that is asked and not trained."""

    base: str = Field(
        description='Hub id, folder, run folder, "@stage" of a pipeline, or a recipe (.yaml) that makes one'
    )
    revision: str | None = Field(None, description="commit, tag or branch of a Hub id")


class ModelSpec(Spec):
    """A model to start from."""

    base: str = Field(
        description='Hub id, folder, run folder, "@stage" of a pipeline, or a pretrain recipe (.yaml)'
    )
    revision: str | None = Field(None, description="commit, tag or branch of a Hub id")
    lora: LoraSpec | None = Field(
        None, description="leave out to train all weights (or to go on with the base's adapter)"
    )
    merge: bool = Field(False, description="merge the base's own adapter into its weights first")
    quantize: Literal["none", "8bit", "4bit"] = Field(
        "none", description="load the frozen backbone quantised, under lora or the base's own adapter"
    )


class TokenizerSpec(Spec):
    """A byte-level BPE tokenizer, trained on the pretraining text."""

    vocab_size: int = Field(1024, ge=300, description="tokens, bytes and control tokens included")


class ArchitectureSpec(Spec):
    """A small decoder-only transformer, built from transformers' own config classes."""

    architecture: Literal["llama", "gpt_neox", "qwen3"] = Field(
        "llama", description="family of the config class"
    )
    hidden_size: int = Field(128, gt=0)
    layers: int = Field(4, gt=0)
    heads: int = Field(4, gt=0)
    kv_heads: int | None = Field(None, gt=0, description="key/value heads; as many as heads when left out")
    intermediate_size: int = Field(320, gt=0)
    context_length: int = Field(256, gt=1, description="longest sequence, in tokens")
    tie_embeddings: bool = Field(True, description="one matrix for input and output embeddings")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size = {self.hidden_size} must be a multiple of heads = {self.heads}")
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"heads = {self.heads} must be a multiple of kv_heads = {self.kv_heads}")
        return self
