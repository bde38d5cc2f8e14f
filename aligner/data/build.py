"""The one public door: specs in; rows ready to train on out, with an account of every row.

Order of things: read → clean → refuse forged control tokens → settle contradictions (pairs) → draw or
read the hold-out → decontaminate → cap → weigh → render tasks → tokenise → shuffle → mix. Training rows come in a
random order that depends on the seed; held-out rows keep the order of their files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from aligner.data.assembly import Asked, Built, Step, assemble
from aligner.data.costs import RowCost
from aligner.data.instances import Epochs, one_epoch
from aligner.data.kept import Wanted, kept
from aligner.data.pair_rows import PairStore
from aligner.data.preferences import settle_pairs, share_weights
from aligner.data.prompt_rows import PromptStore
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


# Conversations, and plain documents among those to train on, as ids with their supervised masks; preference pairs.
Conversations = Built[TokenRow]
Pairs = Built[PairRow]


@dataclass(frozen=True)
class Prompts:
    """Prompts as ids, in a random order."""

    rows: Sequence[PromptRow]
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
    spec: DataSpec,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    epochs: Epochs = one_epoch,
    keep: Path | None = None,
) -> Conversations:
    """Conversations for instruction tuning, mixed with the plain documents of sources whose format says so.

    epochs: how many are begun with so many rows; the rows of tasks are rendered for each of them. keep: a folder of
    rows that were made before (see `kept`). `DataError` where too many answers would be cut.
    """

    def convert(rows: list[Row]) -> list[list[TokenRow]]:
        if any(isinstance(row, Document) for row in rows):  # all are: a source has one kind
            return tokenize_documents(cast(list[Document], rows), tokenizer, spec.max_length)
        return [
            [row]
            for row in tokenize_conversations(cast(list[Conversation], rows), tokenizer, spec.max_length)
        ]

    def built(begun: Epochs) -> Conversations:
        check = partial(check_cut_answers, spec=spec)
        refuse = refuse_forged(tokenizer)
        step = Step[TokenRow](
            "conversation", refuse, convert, conversation_cost, TokenStore, check=check, plain=True
        )
        return assemble(_asked(spec), step, seed=seed, epochs=begun)

    return kept(keep, Wanted(spec, tokenizer, seed), TokenStore, built, epochs)


def build_pairs(
    spec: PairDataSpec, tokenizer: PreTrainedTokenizerBase, *, seed: int, keep: Path | None = None
) -> Pairs:
    """Preference pairs for reward models, contradictions settled and weighed as `spec.pairs` says.

    keep: as of `build_conversations`. Raises `DataError` where too many answers would be cut.
    """

    def convert(rows: list[Row]) -> list[list[PairRow]]:
        return [[row] for row in tokenize_pairs(cast(list[Pair], rows), tokenizer, spec.max_length)]

    def settle(sources: Sequence[SourceRows]) -> None:
        settle_pairs(sources, spec.pairs)

    def share(sources: Sequence[SourceRows]) -> None:
        if spec.pairs.weigh == "prompt":
            share_weights(sources)

    def built(begun: Epochs) -> Pairs:
        check = partial(check_cut_answers, spec=spec)
        refuse = refuse_forged(tokenizer)
        step = Step[PairRow]("pair", refuse, convert, _pair_cost, PairStore, settle, share, check)
        return assemble(_asked(spec), step, seed=seed, epochs=begun)

    return kept(keep, Wanted(spec, tokenizer, seed), PairStore, built)


def build_prompts(
    sources: Sequence[SourceSpec],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_tokens: int,
    seed: int,
    clean: CleanSpec | None = None,
) -> Prompts:
    """Prompts to be answered."""
    step = _prompt_step(tokenizer, max_prompt_tokens)
    built = assemble(Asked(sources, HoldoutSpec(), clean), step, seed=seed)
    return Prompts(built.train, built.report)


def build_training_prompts(
    spec: PromptsSpec, tokenizer: PreTrainedTokenizerBase, *, seed: int, keep: Path | None = None
) -> Prompts:
    """Prompts to be trained on: cleaned, less those that are held out; keep: as of `build_conversations`."""
    asked = Asked(spec.train, HoldoutSpec(sources=spec.holdout), spec.clean, spec.decontaminate)

    def made(begun: Epochs) -> Built[PromptRow]:
        step = _prompt_step(tokenizer, spec.max_prompt_tokens)
        return assemble(asked, step, seed=seed, epochs=begun)

    built = kept(keep, Wanted(spec, tokenizer, seed), PromptStore, made)
    return Prompts(built.train, replace(built.report, holdout=[]))


def _prompt_step(tokenizer: PreTrainedTokenizerBase, longest: int) -> Step[PromptRow]:
    def convert(rows: list[Row]) -> list[list[PromptRow]]:
        return [[row] for row in tokenize_prompts(cast(list[Prompt], rows), tokenizer, longest)]

    return Step[PromptRow]("prompt", refuse_forged(tokenizer), convert, _prompt_cost, PromptStore)


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
