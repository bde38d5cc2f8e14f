"""The one public door: specs in; rows ready to train on out, with an account of every row.

Order of things: read → clean → refuse forged control tokens → settle contradictions (pairs) → draw or
read the hold-out → cap → weigh → render tasks → tokenise → shuffle. Training rows come in a random order that depends
on the seed; held-out rows keep the order of their files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from aligner.data.clean import clean_sources
from aligner.data.cleaning.words import word_files
from aligner.data.instances import Epochs, Renderer, converted_anew, one_epoch
from aligner.data.mixture import cap_files, draw_holdout, drop_withheld, shuffled, weigh
from aligner.data.preferences import settle_pairs, share_weights
from aligner.data.readers import SourceRows, read_source
from aligner.data.readers.kinds import Kind
from aligner.data.refusals import check_cut_answers, check_not_empty, refuse_forged
from aligner.data.report import DataReport, RowCost, report_source
from aligner.data.rows import Conversation, Document, Pair, Prompt, Row
from aligner.data.tokens import (
    PairRow,
    PromptRow,
    TokenRow,
    tokenize_conversations,
    tokenize_pairs,
    tokenize_prompts,
)
from aligner.recipe.data import CleanSpec, DataSpec, HoldoutSpec, PairDataSpec, PretrainDataSpec, SourceSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")
OfAll = Callable[[Sequence[SourceRows]], None]


@dataclass(frozen=True)
class Documents:
    """Documents to pretrain on, always or early alone (copies included, shuffled), and held-out ones."""

    train: list[Document]
    curriculum: list[Document]
    holdout: list[Document]
    report: DataReport


@dataclass(frozen=True)
class Conversations:
    """Conversations as ids with their supervised masks.

    `later`: the training rows of each later epoch, in the order of `train`, where there are tasks, whose rows are
    rendered anew for each epoch. An epoch beyond them begins with `train` again.
    """

    train: list[TokenRow]
    holdout: list[TokenRow]
    report: DataReport
    later: list[list[TokenRow]] = field(default_factory=list)


@dataclass(frozen=True)
class Pairs:
    """Preference pairs as ids."""

    train: list[PairRow]
    holdout: list[PairRow]
    report: DataReport


@dataclass(frozen=True)
class Prompts:
    """Prompts as ids, in a random order."""

    rows: list[PromptRow]
    report: DataReport


@dataclass(frozen=True)
class _Built(Generic[T]):
    """Values of the used rows, and the accounts; `costs` of all rows, copies aside. `later`: see `Conversations`."""

    train: list[T]
    later: list[list[T]]
    curriculum: list[T]
    holdout: list[T]
    report: DataReport
    costs: list[RowCost]


@dataclass(frozen=True)
class _Step(Generic[T]):
    """How rows of one kind are judged and turned to values.

    Of all sources of a part together: `settle` judges what was read, `share` weighs what is left.
    """

    kind: Kind
    reason_against: Callable[[Row], str | None]
    convert: Callable[[list[Row]], list[T]]
    cost: Callable[[T], RowCost]
    settle: OfAll = lambda sources: None
    share: OfAll = lambda sources: None


def build_documents(spec: PretrainDataSpec, *, seed: int) -> Documents:
    """Documents read, cleaned and mixed; no tokenizer is needed yet.

    Repeats are looked for within the curriculum, not between it and the rest: a document may well come early and again.
    """

    def convert(rows: list[Row]) -> list[Document]:
        return cast(list[Document], rows)

    step = _Step[Document]("document", lambda row: None, convert, lambda row: RowCost())
    early = spec.curriculum.sources if spec.curriculum else ()
    built = _build(spec.train, spec.holdout, step, seed=seed, clean=spec.clean, curriculum=early)
    return Documents(built.train, built.curriculum, built.holdout, built.report)


def build_conversations(
    spec: DataSpec, tokenizer: PreTrainedTokenizerBase, *, seed: int, epochs: Epochs = one_epoch
) -> Conversations:
    """Conversations for instruction tuning; `DataError` where too many answers would be cut.

    epochs: how many are begun with so many rows; the rows of tasks are rendered for each of them.
    """

    def convert(rows: list[Row]) -> list[TokenRow]:
        return tokenize_conversations(cast(list[Conversation], rows), tokenizer, spec.max_length)

    step = _Step[TokenRow]("conversation", refuse_forged(tokenizer), convert, _conversation_cost)
    built = _build(spec.train, spec.holdout, step, seed=seed, clean=spec.clean, epochs=epochs)
    check_cut_answers(
        [*built.costs, *(_conversation_cost(row) for rows in built.later for row in rows)], spec
    )
    return Conversations(built.train, built.holdout, built.report, built.later)


def build_pairs(spec: PairDataSpec, tokenizer: PreTrainedTokenizerBase, *, seed: int) -> Pairs:
    """Preference pairs for reward models, contradictions settled and weighed as `spec.pairs` says.

    Raises `DataError` where too many answers would be cut.
    """

    def convert(rows: list[Row]) -> list[PairRow]:
        return tokenize_pairs(cast(list[Pair], rows), tokenizer, spec.max_length)

    def settle(sources: Sequence[SourceRows]) -> None:
        settle_pairs(sources, spec.pairs)

    def share(sources: Sequence[SourceRows]) -> None:
        if spec.pairs.weigh == "prompt":
            share_weights(sources)

    step = _Step[PairRow]("pair", refuse_forged(tokenizer), convert, _pair_cost, settle, share)
    built = _build(spec.train, spec.holdout, step, seed=seed, clean=spec.clean)
    check_cut_answers(built.costs, spec)
    return Pairs(built.train, built.holdout, built.report)


def build_prompts(
    sources: Sequence[SourceSpec],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_tokens: int,
    seed: int,
    withhold: Sequence[SourceSpec] = (),
) -> Prompts:
    """Prompts to be answered, less those that also stand in a `withhold` source."""

    def convert(rows: list[Row]) -> list[PromptRow]:
        return tokenize_prompts(cast(list[Prompt], rows), tokenizer, max_prompt_tokens)

    step = _Step[PromptRow]("prompt", refuse_forged(tokenizer), convert, _prompt_cost)
    built = _build(sources, HoldoutSpec(sources=list(withhold)), step, seed=seed)
    return Prompts(built.train, DataReport(train=built.report.train))


def _build(
    specs: Sequence[SourceSpec],
    held: HoldoutSpec,
    step: _Step[T],
    *,
    seed: int,
    clean: CleanSpec | None = None,
    curriculum: Sequence[SourceSpec] = (),
    epochs: Epochs = one_epoch,
) -> _Built[T]:
    renderer = Renderer(step.reason_against, seed=seed)
    sources = _read(specs, step, clean, renderer)
    early = _read(curriculum, step, clean, renderer)
    holdout, held_copies = _withhold(held, sources, step, clean, renderer, seed=seed)
    drop_withheld(early, holdout)
    renderer.withhold(holdout, sources)
    copies = [_mix(source, spec, seed) for source, spec in zip(sources, specs, strict=True)]
    early_copies = [_mix(source, spec, seed) for source, spec in zip(early, curriculum, strict=True)]
    check_not_empty(sources, "train")
    check_not_empty(early, "curriculum")
    check_not_empty(holdout, "holdout")
    step.share(sources)
    first, *others = renderer.epochs(sources, copies, epochs)
    held_rows = [renderer.rows(*entry, held=True) for entry in zip(holdout, held_copies, strict=True)]
    values, early_values, held_values = (
        [step.convert(rows) for rows in part]
        for part in (first, [source.rows for source in early], held_rows)
    )
    later = [converted_anew(sources, rows, values, step.convert) for rows in others]
    costs, early_costs, held_costs = (
        [[step.cost(value) for value in given] for given in part]
        for part in (values, early_values, held_values)
    )
    return _Built(
        train=_shuffled(sources, values, copies, seed=seed),
        later=[_shuffled(sources, given, copies, seed=seed) for given in later],
        curriculum=_shuffled(early, early_values, early_copies, seed=seed),
        holdout=[value for pair in zip(held_values, held_copies, strict=True) for value in _repeated(*pair)],
        report=DataReport(
            [report_source(*entry) for entry in zip(sources, costs, copies, strict=True)],
            [report_source(*entry) for entry in zip(holdout, held_costs, held_copies, strict=True)],
            [report_source(*entry) for entry in zip(early, early_costs, early_copies, strict=True)],
            word_files(clean.words) if clean else [],
        ),
        costs=[cost for given in costs + early_costs + held_costs for cost in given],
    )


def _withhold(
    held: HoldoutSpec,
    sources: Sequence[SourceRows],
    step: _Step[T],
    clean: CleanSpec | None,
    renderer: Renderer,
    *,
    seed: int,
) -> tuple[list[SourceRows], list[list[int]]]:
    """The held-out rows, which are no longer among the sources', and how often each counts."""
    if held.rows:
        holdout = draw_holdout(sources, held.rows, seed=seed)
        return holdout, [[1] * len(source.rows) for source in holdout]
    holdout = _read(held.sources, step, clean, renderer)
    copies = [_mix(source, spec, seed) for source, spec in zip(holdout, held.sources, strict=True)]
    drop_withheld(sources, holdout)
    return holdout, copies


def _shuffled(
    sources: Sequence[SourceRows], values: Sequence[list[T]], copies: Sequence[list[int]], *, seed: int
) -> list[T]:
    """The values of all sources, each as often as its row has copies, in one random order."""
    return shuffled(
        [row for source in sources for row in source.rows],
        [value for given in values for value in given],
        [number for given in copies for number in given],
        seed=seed,
    )


def _read(
    specs: Sequence[SourceSpec], step: _Step[T], clean: CleanSpec | None, renderer: Renderer
) -> list[SourceRows]:
    sources = [read_source(spec, step.kind) for spec in specs]
    if clean is not None:
        clean_sources(sources, clean)
    for source in sources:
        source.keep(step.reason_against)
        source.keep(renderer.reason_against)
    step.settle(sources)
    return sources


def _mix(source: SourceRows, spec: SourceSpec, seed: int) -> list[int]:
    cap_files(source, spec.cap, seed=seed)
    return weigh(source, spec.weight, seed=seed)


def _repeated(values: list[T], copies: list[int]) -> list[T]:
    return [value for value, number in zip(values, copies, strict=True) for _ in range(number)]


def _conversation_cost(row: TokenRow) -> RowCost:
    return RowCost(len(row.input_ids), sum(row.supervised), row.prompt_cut, row.answer_cut, row.rewritten)


def _pair_cost(row: PairRow) -> RowCost:
    tokens = len(row.chosen_ids) + len(row.rejected_ids)
    return RowCost(tokens, tokens - 2 * row.prompt_length, row.prompt_cut, row.answer_cut)


def _prompt_cost(row: PromptRow) -> RowCost:
    return RowCost(len(row.input_ids), 0, row.prompt_cut)
