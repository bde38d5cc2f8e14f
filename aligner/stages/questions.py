"""What an evaluation asks: the rows of its suites, under one model's tokenizer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from aligner.data.build import Pairs, build_documents, build_pairs, build_prompts
from aligner.data.report import DataReport
from aligner.data.rows import Document
from aligner.data.tokens import PairRow, PromptRow
from aligner.recipe.clean import CleanSpec
from aligner.recipe.data import PairDataSpec, PairRules, PretrainDataSpec, SourceSpec
from aligner.recipe.evaluate import EvaluateRecipe

EVERY_DOCUMENT = CleanSpec(min_chars=0, min_letter_share=0.0, deduplicate=False)


@dataclass(frozen=True)
class Questions:
    """The suites' rows under one tokenizer; `reports`: how they were read, by suite."""

    documents: list[Document]
    tasks: dict[str, list[PromptRow]]
    examples: list[PromptRow]
    pairs: Sequence[PairRow]
    prompts: list[PromptRow]
    reports: dict[str, DataReport]

    @property
    def data(self) -> dict[str, object]:
        """The reports as plain values."""
        return {suite: report.to_json() for suite, report in self.reports.items()}


def read_questions(recipe: EvaluateRecipe, tokenizer: PreTrainedTokenizerBase, *, context: int) -> Questions:
    """Rows of all suites, read and rendered for a model with this tokenizer that reads `context` tokens."""
    spec = recipe.suites
    reports: dict[str, DataReport] = {}
    longest = context - recipe.sampling.max_new_tokens

    def prompts(name: str, sources: list[SourceSpec]) -> list[PromptRow]:
        if not sources:
            return []
        built = build_prompts(sources, tokenizer, max_prompt_tokens=longest, seed=recipe.seed)
        reports[name] = built.report
        return list(built.rows)

    documents: list[Document] = []
    if spec.documents:
        read = build_documents(PretrainDataSpec(train=spec.documents, clean=EVERY_DOCUMENT), seed=recipe.seed)
        documents, reports["documents"] = read.train, read.report
    pairs: Sequence[PairRow] = []
    if spec.pairs:
        paired = read_pairs(recipe, tokenizer, context=context)
        pairs, reports["pairs"] = paired.train, paired.report
    tasks = {suite: prompts(f"tasks.{suite}", sources) for suite, sources in spec.tasks.items()}
    examples = prompts("examples", spec.examples)
    drawn = _some(prompts("prompts", spec.prompts), spec.prompt_rows, recipe.seed)
    return Questions(documents, tasks, examples, pairs, drawn, reports)


def read_pairs(recipe: EvaluateRecipe, tokenizer: PreTrainedTokenizerBase, *, context: int) -> Pairs:
    """The rows of the pairs suite for a model with this tokenizer that reads `context` tokens.

    A test is taken as it is: what contradicts itself in it is measured too.
    """
    as_they_are = PairRules(conflicts="keep")
    asked = PairDataSpec(train=recipe.suites.pairs, max_length=context, cut_answers=1.0, pairs=as_they_are)
    return build_pairs(asked, tokenizer, seed=recipe.seed)


def _some(rows: list[PromptRow], count: int, seed: int) -> list[PromptRow]:
    """`count` of the rows, the same ones for every model."""
    if len(rows) <= count:
        return rows
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), count))]
