"""What a task file may say: where the rows of a task lie, and the templates that write them as text."""

from __future__ import annotations

from collections import Counter
from typing import Self

from pydantic import Field, ValidationError, model_validator

from aligner.errors import Problem
from aligner.recipe.base import Spec
from aligner.recipe.shape import unknown_keys
from aligner.recipe.text import MapNode, plain
from aligner.recipe.translate import translate


class TemplateSpec(Spec):
    """One way to write a row: Jinja over its fields."""

    name: str = Field(min_length=1, description="what reports call it")
    input: str = Field(description="what is asked, as Jinja over the row's fields")
    target: str | None = Field(None, description="what is answered; the task's target when left out")
    answer_choices: str | list[str] | None = Field(
        None,
        description="possible answers, as Jinja; in text ||| stands between them; the task's when left out",
    )
    inverts: bool = Field(False, description="turns the task around: asks for what others give (FLAN)")
    rationale: bool = Field(False, description="answers with reasons: used for the source's share of them")


class TaskSpec(Spec):
    """A task: a table of fields and several templates."""

    name: str = Field(min_length=1, description="what reports call it; no other task of a recipe has it")
    family: str | None = Field(None, description="cluster of like tasks; the name when left out")
    rows: str | list[str] = Field(description="file, folder or glob of the rows, from the task file's folder")
    integers: list[str] = Field(
        default_factory=list, description="columns of a .csv or .tsv table that hold whole numbers"
    )
    inputs: list[str] = Field(
        default_factory=list, description="fields that say it all, one a line, for templates: none"
    )
    target: str | None = Field(None, description="the answer of templates that have none of their own")
    answer_choices: str | list[str] | None = Field(None, description="those of templates without their own")
    templates: list[TemplateSpec] = Field(default_factory=list, description="the ways to write a row")
    promptsource: str | None = Field(
        None, description="a templates.yaml of PromptSource, from the task file's folder"
    )

    @model_validator(mode="after")
    def _templates_are_whole(self) -> Self:
        if "/" in self.name:
            raise ValueError(f'name = "{self.name}": reports write task/template, so it has no /')
        if not (self.templates or self.promptsource):
            raise ValueError("a task needs templates, or a file of promptsource")
        twice = [name for name, count in Counter(each.name for each in self.templates).items() if count > 1]
        if twice:
            raise ValueError(f'two templates are called "{twice[0]}"; give each its own name')
        lacking = [each.name for each in self.templates if each.target is None and self.target is None]
        if lacking:
            raise ValueError(f'the template "{lacking[0]}" has no target, and the task gives none')
        return self


def read_task_spec(tree: MapNode) -> tuple[TaskSpec | None, list[Problem]]:
    """The task that a file says, or none, and every mistake in it."""
    problems = list(unknown_keys(tree, TaskSpec, TaskSpec))
    try:
        return TaskSpec.model_validate(plain(tree)), problems
    except ValidationError as error:
        return None, [*problems, *translate(error, tree, TaskSpec)]
