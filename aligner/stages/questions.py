"""What an evaluation asks: the rows of its suites, under one model's tokenizer."""

from __future__ import annotations

import random
from dataclasses import dataclass

from aligner.data.build import build_documents, build_pairs, build_prompts
from aligner.data.rows import Document
from aligner.data.tokens import PairRow, PromptRow
from aligner.evals.suites import Subject
from aligner.recipe.clean import CleanSpec
from aligner.recipe.data import PairDataSpec, PairRules, PretrainDataSpec, SourceSpec
from aligner.recipe.evaluate import EvaluateRecipe

EVERY_DOCUMENT = CleanSpec(min_chars=0, min_letter_share=0.0, deduplicate=False)


@dataclass(frozen=True)
class Questions:
    """The suites' rows under one tokenizer; `data` holds the reports of how they were read."""

    documents: list[Document]
    tasks: dict[str, list[PromptRow]]
    examples: list[PromptRow]
    pairs: list[PairRow]
    prompts: list[PromptRow]
    data: dict[str, object]


def read_questions(recipe: EvaluateRecipe, subject: Subject) -> Questions:
    """Rows of all suites, read and rendered for this model."""
    spec = recipe.suites
    data: dict[str, object] = {}
    longest = subject.context - recipe.sampling.max_new_tokens

    def prompts(name: str, sources: list[SourceSpec]) -> list[PromptRow]:
        if not sources:
            return []
        built = build_prompts(sources, subject.tokenizer, max_prompt_tokens=longest, seed=recipe.seed)
        data[name] = built.report.to_json()
        return built.rows

    documents: list[Document] = []
    if spec.documents:
        read = build_documents(PretrainDataSpec(train=spec.documents, clean=EVERY_DOCUMENT), seed=recipe.seed)
        documents, data["documents"] = read.train, read.report.to_json()
    pairs: list[PairRow] = []
    if spec.pairs:
        # A test is taken as it is: what contradicts itself in it is measured too.
        as_they_are = PairRules(conflicts="keep")
        pair_spec = PairDataSpec(
            train=spec.pairs, max_length=subject.context, cut_answers=1.0, pairs=as_they_are
        )
        paired = build_pairs(pair_spec, subject.tokenizer, seed=recipe.seed)
        pairs, data["pairs"] = paired.train, paired.report.to_json()
    tasks = {suite: prompts(f"tasks.{suite}", sources) for suite, sources in spec.tasks.items()}
    examples = prompts("examples", spec.examples)
    drawn = _some(prompts("prompts", spec.prompts), spec.prompt_rows, recipe.seed)
    return Questions(documents, tasks, examples, pairs, drawn, data)


def _some(rows: list[PromptRow], count: int, seed: int) -> list[PromptRow]:
    """`count` of the rows, the same ones for every model."""
    if len(rows) <= count:
        return rows
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), count))]
