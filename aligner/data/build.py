"""The one public door: specs in; rows ready to train on out, with an account of every row.

Order of things: read → clean → refuse forged control tokens → settle contradictions (pairs) → draw or
read the hold-out → decontaminate → cap → weigh → render tasks → tokenise → shuffle → mix. Training rows come in a
random order that depends on the seed; held-out rows keep the order of their files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from aligner.data.assembly import Asked, Step, assemble
from aligner.data.costs import RowCost
from aligner.data.instances import Epochs, one_epoch
from aligner.data.mix import Mix
from aligner.data.pair_rows import PairStore
from aligner.data.preferences import settle_pairs, share_weights
from aligner.data.readers import SourceRows
from aligner.data.refusals import check_cut_answers, refuse_forged
from aligner.data.report import DataReport
from aligner.data.rows import Conversation, Document, Pair, Prompt, Row
from aligner.data.token_rows import TokenStore
from aligner.data.tokens import (
    PairRow,
    PromptRow,
    TokenRow,
    tokenize_conversations,
    tokenize_documents,
    tokenize_pairs,
    tokenize_prompts,
)
from aligner.recipe.clean import CleanSpec
from aligner.recipe.data import (
    DataSpec,
    HoldoutSpec,
    PairDataSpec,
    PretrainDataSpec,
    SourceSpec,
)
from aligner.recipe.ppo import PromptsSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Documents:
    """Documents to pretrain on, always or early alone (copies included, shuffled), and held-out ones."""

    train: list[Document]
    curriculum: list[Document]
    holdout: list[Document]
    report: DataReport


@dataclass(frozen=True)
class Conversations:
    """Conversations, and plain documents among those to train on, as ids with their supervised masks.

    `train`: the rows of the first epoch and, where there are tasks, their rows as later epochs have them; `mix` knows.
    """

    train: Sequence[TokenRow]
    holdout: Sequence[TokenRow]
    report: DataReport
    mix: Mix


@dataclass(frozen=True)
class Pairs:
    """Preference pairs as ids."""

    train: Sequence[PairRow]
    holdout: Sequence[PairRow]
    report: DataReport
    mix: Mix


@dataclass(frozen=True)
class Prompts:
    """Prompts as ids, in a random order."""

    rows: list[PromptRow]
    report: DataReport


def build_documents(spec: PretrainDataSpec, *, seed: int) -> Documents:
    """Documents read, cleaned and mixed; no tokenizer is needed yet.

    Repeats are looked for within the curriculum, not between it and the rest: a document may well come early and again.
    """

    def convert(rows: list[Row]) -> list[list[Document]]:
        return [[row] for row in cast(list[Document], rows)]

    step = Step[Document]("document", lambda row: None, convert, lambda row: RowCost())
    early = spec.curriculum.sources if spec.curriculum else ()
    asked = Asked(spec.train, spec.holdout, spec.clean, spec.decontaminate, curriculum=early)
    built = assemble(asked, step, seed=seed)
    return Documents(list(built.train), list(built.curriculum), list(built.holdout), built.report)


def build_conversations(
    spec: DataSpec, tokenizer: PreTrainedTokenizerBase, *, seed: int, epochs: Epochs = one_epoch
) -> Conversations:
    """Conversations for instruction tuning, mixed with the plain documents of sources whose format says so.

    epochs: how many are begun with so many rows; the rows of tasks are rendered for each of them.
    `DataError` where too many answers would be cut.
    """

    def convert(rows: list[Row]) -> list[list[TokenRow]]:
        if any(isinstance(row, Document) for row in rows):  # all are: a source has one kind
            return tokenize_documents(cast(list[Document], rows), tokenizer, spec.max_length)
        return [
            [row]
            for row in tokenize_conversations(cast(list[Conversation], rows), tokenizer, spec.max_length)
        ]

    refuse = refuse_forged(tokenizer)
    step = Step[TokenRow]("conversation", refuse, convert, conversation_cost, TokenStore, plain=True)
    built = assemble(_asked(spec), step, seed=seed, epochs=epochs)
    check_cut_answers(built.answers, spec)
    return Conversations(built.train, built.holdout, built.report, built.mix)


def build_pairs(spec: PairDataSpec, tokenizer: PreTrainedTokenizerBase, *, seed: int) -> Pairs:
    """Preference pairs for reward models, contradictions settled and weighed as `spec.pairs` says.

    Raises `DataError` where too many answers would be cut.
    """

    def convert(rows: list[Row]) -> list[list[PairRow]]:
        return [[row] for row in tokenize_pairs(cast(list[Pair], rows), tokenizer, spec.max_length)]

    def settle(sources: Sequence[SourceRows]) -> None:
        settle_pairs(sources, spec.pairs)

    def share(sources: Sequence[SourceRows]) -> None:
        if spec.pairs.weigh == "prompt":
            share_weights(sources)

    refuse = refuse_forged(tokenizer)
    step = Step[PairRow]("pair", refuse, convert, _pair_cost, PairStore, settle=settle, share=share)
    built = assemble(_asked(spec), step, seed=seed)
    check_cut_answers(built.answers, spec)
    return Pairs(built.train, built.holdout, built.report, built.mix)


def build_prompts(
    sources: Sequence[SourceSpec],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_tokens: int,
    seed: int,
    clean: CleanSpec | None = None,
) -> Prompts:
    """Prompts to be answered."""
    return _prompts(Asked(sources, HoldoutSpec(), clean), tokenizer, max_prompt_tokens, seed)


def build_training_prompts(
    spec: PromptsSpec, tokenizer: PreTrainedTokenizerBase, *, max_prompt_tokens: int, seed: int
) -> Prompts:
    """Prompts to be trained on: cleaned, less those that are held out."""
    asked = Asked(spec.train, HoldoutSpec(sources=spec.holdout), spec.clean, spec.decontaminate)
    return _prompts(asked, tokenizer, max_prompt_tokens, seed)


def _prompts(asked: Asked, tokenizer: PreTrainedTokenizerBase, longest: int, seed: int) -> Prompts:
    def convert(rows: list[Row]) -> list[list[PromptRow]]:
        return [[row] for row in tokenize_prompts(cast(list[Prompt], rows), tokenizer, longest)]

    step = Step[PromptRow]("prompt", refuse_forged(tokenizer), convert, _prompt_cost)
    built = assemble(asked, step, seed=seed)
    return Prompts(list(built.train), replace(built.report, holdout=[]))


def _asked(spec: DataSpec) -> Asked:
    return Asked(spec.train, spec.holdout, spec.clean, spec.decontaminate, spec.mixture)


def conversation_cost(row: TokenRow) -> RowCost:
    """What a row takes and gives, as its mix and its report count it."""
    cut = row.prompt_cut, row.answer_cut
    return RowCost(len(row.input_ids), sum(row.supervised), *cut, row.rewritten, row.template, row.shots)


def _pair_cost(row: PairRow) -> RowCost:
    tokens = len(row.chosen_ids) + len(row.rejected_ids)
    return RowCost(tokens, tokens - 2 * row.prompt_length, row.prompt_cut, row.answer_cut)


def _prompt_cost(row: PromptRow) -> RowCost:
    return RowCost(len(row.input_ids), 0, row.prompt_cut)
