"""How new instructions are bootstrapped from seed tasks."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec

KEYWORDS = (
    "image", "images", "picture", "pictures", "photo", "photos", "video", "videos", "audio", "music", "draw",
    "graph", "graphs", "plot", "diagram", "map", "maps", "file", "files", "website", "link", "go to",
)  # fmt: skip


class SelfInstructSpec(Spec):
    """Self-instruct (Wang et al. 2022, arXiv:2212.10560); the defaults are the paper's where it has one."""

    instructions: int = Field(gt=0, description="new ones to stop at; a round that is begun is finished")
    rounds: int = Field(100, gt=0, description="rounds at most, however few instructions there are by then")
    prompts_per_round: int = Field(16, gt=0, description="lists of tasks the model goes on with in a round")
    seed_examples: int = Field(6, gt=0, description="seed instructions on each list")
    generated_examples: int = Field(
        2, ge=0, description="new instructions on each list; seeds stand in until there are some"
    )
    instances: int = Field(1, gt=0, description="solved instances drawn for each new instruction")
    demonstrations: int = Field(4, gt=0, description="solved seed tasks shown before an instance")
    max_rouge_l: float = Field(
        0.7, gt=0, le=1, description="an instruction this near to a seed or to an earlier one is not new"
    )
    min_words: int = Field(4, gt=0, description="of an instruction")
    max_words: int = Field(150, gt=0, description="of an instruction")
    keywords: list[str] = Field(
        default_factory=lambda: list(KEYWORDS),
        description="words and phrases of instructions that a language model cannot follow",
    )
    style: Literal["page", "chat"] = Field(
        "page", description="page: a base model goes on with a text; chat: a tuned model is asked to"
    )

    @model_validator(mode="after")
    def _lengths_leave_room(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words = {self.min_words} is above max_words = {self.max_words}")
        return self
