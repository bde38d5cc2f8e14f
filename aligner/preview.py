"""What a stage would see: its rows, printed or as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import (
    PreTrainedTokenizerBase,
)

from aligner.data.bootstrap.pages import tasks_page
from aligner.data.bootstrap.tasks import InstructionTask, build_seed_tasks
from aligner.data.build import (
    build_conversations,
    build_documents,
    build_pairs,
    build_training_prompts,
)
from aligner.data.mix import Mix
from aligner.data.pieces import shown_document, shown_row
from aligner.data.plan import SourcePlan, plan_sources, report_table, template_rows
from aligner.data.report import DataReport
from aligner.data.rows import Document, Origin, Prompt
from aligner.data.show import show_documents, show_dropped, show_legend, show_rows, show_templates
from aligner.data.show_page import StageView, drops_of, render_page
from aligner.data.tokens import PairRow, PromptRow, TokenRow
from aligner.errors import Problem, RecipeError, nearest
from aligner.models.wrapped import context_of
from aligner.planning import (
    PlannedStage,
    measured_so_far,
    perplexity_to_come,
    planned_stages,
)
from aligner.recipe.evaluate import EvaluateRecipe
from aligner.recipe.group import GroupRecipe
from aligner.recipe.perplexity import PerplexityRecipe
from aligner.recipe.ppo import PpoRecipe
from aligner.recipe.preference import PreferenceRecipe
from aligner.recipe.stage import StageRecipe
from aligner.recipe.stages import PretrainRecipe, RewardRecipe, SelfInstructRecipe, SftRecipe
from aligner.run.progress import say
from aligner.run.write import write_text
from aligner.stages.perplexity import read_texts
from aligner.stages.questions import Questions, read_questions
from aligner.stages.selfinstruct import list_examples
from aligner.stages.writer import page_ids
from aligner.start import Start, start_of


@dataclass(frozen=True)
class Look:
    """What a stage sees: rows or documents, the accounts of their sources and, of rows that are mixed, their mix.

    `suites`: of an evaluation the rows of each, by name; its documents are among `documents`.
    """

    rows: Sequence[TokenRow | PairRow | PromptRow] = ()
    documents: Sequence[Document] = ()
    curriculum: Sequence[Document] = ()
    suites: Mapping[str, Sequence[PairRow | PromptRow]] = field(default_factory=dict)
    reports: Sequence[DataReport] = ()
    mix: Mix | None = None

    @property
    def templates(self) -> list[SourcePlan]:
        """What the first epoch reads of each source, where its rows are mixed."""
        if self.mix is None:
            return []
        return plan_sources(self.reports[0], self.mix, self.mix.epoch(0))


def show_recipe(path: Path, overrides: Sequence[str] = (), count: int = 5, stage: str | None = None) -> None:
    """Print the first rows of each stage as the model will see them; of an evaluation, of each of its suites.

    stage: of a pipeline, this one alone. RecipeError where it has none of that name.
    """
    for _, start, look in _looks(path, overrides, count, stage):
        if look.rows or look.suites:
            show_legend()
        show_rows(look.rows[:count], start.tokenizer)
        for suite, asked in look.suites.items():
            show_rows(asked[:count], start.tokenizer, part=f"{suite} ")
        show_documents(look.documents[:count], start.tokenizer)
        show_documents(look.curriculum[:count], start.tokenizer, part="curriculum ")
        show_templates(look.templates)


def show_dropped_rows(
    path: Path, overrides: Sequence[str] = (), count: int = 5, stage: str | None = None
) -> None:
    """Print the rows that each stage drops, by source and reason, a few of each; `stage` as of `show_recipe`."""
    for _, _, look in _looks(path, overrides, count, stage):
        for report in look.reports:
            show_dropped(report, count)


def write_page(
    file: Path, path: Path, overrides: Sequence[str] = (), count: int = 5, stage: str | None = None
) -> None:
    """Write one HTML page of each stage's first rows, the accounts of its sources and a few dropped rows.

    stage: as of `show_recipe`. RecipeError where `file` has another ending than .html or cannot be written.
    """
    if file.suffix.lower() not in (".html", ".htm") or file.is_dir():
        raise RecipeError(Problem(str(file), "is not the name of a page", "name a file that ends with .html"))
    views = [_view(*found, count) for found in _looks(path, overrides, count, stage)]
    try:
        write_text(file, render_page(path.name, views))
    except OSError as error:
        raise RecipeError(
            Problem(str(file), f"cannot be written ({error.strerror})", "name another")
        ) from error


def _view(stage: PlannedStage, start: Start, look: Look, count: int) -> StageView:
    tokenizer = start.tokenizer
    rows = [shown_row(row, tokenizer) for row in look.rows[:count]]
    for suite, asked in look.suites.items():
        found = [shown_row(row, tokenizer) for row in asked[:count]]
        rows += [row._replace(title=f"{suite}, {row.title}") for row in found]
    rows += [shown_document(document, tokenizer) for document in look.documents[:count]]
    for document in look.curriculum[:count]:
        shown = shown_document(document, tokenizer)
        rows.append(shown._replace(title=f"curriculum, {shown.title}"))
    return StageView(
        name=stage.name,
        kind=stage.recipe.stage,
        rows=rows,
        tables=[report_table(report, look.mix) for report in look.reports],
        templates=template_rows(look.templates),
        drops=[drops for report in look.reports for drops in drops_of(report, count)],
    )


def _looks(
    path: Path, overrides: Sequence[str], count: int, only: str | None
) -> Iterator[tuple[PlannedStage, Start, Look]]:
    known: dict[str, Start] = {}
    planned = planned_stages(path, overrides)
    if only and only not in (names := [stage.name for stage in planned]):
        raise RecipeError(Problem(f"--stage {only}", f"{path} has no such stage", nearest(only, names)))
    for asked in planned:
        stage = measured_so_far(asked, planned)
        start = known[stage.name] = start_of(stage, known)  # a later one may begin from it
        if only not in (None, stage.name):
            continue
        if perplexity_to_come(asked, stage):
            say(f"{stage.name}: shown with the rows that perplexity will drop, for it is yet to be measured")
        yield stage, start, _look(stage.recipe, start, count)


def _look(recipe: StageRecipe, start: Start, count: int) -> Look:
    tokenizer = start.tokenizer
    match recipe:
        case PretrainRecipe():
            read = build_documents(recipe.data, seed=recipe.seed)
            return Look(documents=read.train, curriculum=read.curriculum, reports=[read.report])
        case SftRecipe():
            built = build_conversations(recipe.data, tokenizer, seed=recipe.seed)
            return Look(built.train, reports=[built.report], mix=built.mix)
        case RewardRecipe() | PreferenceRecipe():
            pairs = build_pairs(recipe.data, tokenizer, seed=recipe.seed)
            return Look(pairs.train, reports=[pairs.report], mix=pairs.mix)
        case PpoRecipe() | GroupRecipe():
            prompts = build_training_prompts(recipe.data, tokenizer, seed=recipe.seed)
            return Look(prompts.rows, reports=[prompts.report])
        case EvaluateRecipe():
            return _asked(read_questions(recipe, tokenizer, context=context_of(start.config)))
        case SelfInstructRecipe():
            seeds = build_seed_tasks(recipe.seed_tasks, tokenizer, seed=recipe.seed)
            return Look(_first_lists(recipe, seeds.tasks, tokenizer, count), reports=[seeds.report])
        case PerplexityRecipe():
            texts = read_texts(recipe)
            return Look(documents=list(texts.documents.values()), reports=[texts.report])
        case _:
            raise RecipeError(Problem(recipe.stage, "has no rows to show", "name a stage recipe"))


def _asked(questions: Questions) -> Look:
    """What the first model of an evaluation is asked."""
    every: dict[str, Sequence[PairRow | PromptRow]] = {
        **{f"tasks.{name}": rows for name, rows in questions.tasks.items()},
        "examples": questions.examples,
        "pairs": questions.pairs,
        "prompts": questions.prompts,
    }
    suites = {name: rows for name, rows in every.items() if rows}
    return Look(documents=questions.documents, suites=suites, reports=[*questions.reports.values()])


def _first_lists(
    recipe: SelfInstructRecipe,
    seeds: Sequence[InstructionTask],
    tokenizer: PreTrainedTokenizerBase,
    count: int,
) -> list[PromptRow]:
    """The first lists of tasks that the model will go on with, if they fit its context."""
    spec = recipe.selfinstruct
    pages = [
        tasks_page(list_examples(recipe, seeds, [], 0, number))
        for number in range(min(count, spec.prompts_per_round))
    ]
    return [
        PromptRow(
            page_ids(page, tokenizer, spec.style), Prompt(Origin("round 1", number), (), "list of tasks")
        )
        for number, page in enumerate(pages, start=1)
    ]
