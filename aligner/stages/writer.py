"""A model that writes after pages of tasks: pages become prompts that fit its context, and tokens become text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from aligner.data.bootstrap.pages import NO, YES, Page
from aligner.data.ids import encode_texts, ids_inside, one_bos
from aligner.data.rows import Turn
from aligner.data.templates import control_tokens
from aligner.data.tokens import render_prompt
from aligner.evals.likelihood import answer_logprobs
from aligner.models.decoding import decode_whole
from aligner.models.load import LoadedModel
from aligner.models.sample import prompt_room, sample_responses
from aligner.recipe.stages import SelfInstructRecipe

T = TypeVar("T")
SCORED_TOGETHER = 16  # rows in a forward pass


class Asked(NamedTuple):
    """A page and its token ids as the model gets them."""

    page: Page
    ids: list[int]


class Written(NamedTuple):
    """What was written, the page's last word included; `finished`: the model came to an end by itself."""

    text: str
    finished: bool


@dataclass(frozen=True)
class Writer:
    """A frozen model and how it is asked."""

    recipe: SelfInstructRecipe
    loaded: LoadedModel

    @property
    def _chats(self) -> bool:
        return self.recipe.selfinstruct.style == "chat"

    def ask(self, examples: Sequence[T], page_of: Callable[[Sequence[T]], Page]) -> Asked | None:
        """A page after as many of the examples as fit, the first ones left out first; None where not one fits."""
        room = prompt_room(self.loaded.model, self.recipe.sampling.max_new_tokens)
        for start in range(len(examples)):
            page = page_of(examples[start:])
            ids = page_ids(page, self.loaded.tokenizer, self.recipe.selfinstruct.style)
            if len(ids) <= room:
                return Asked(page, ids)
        return None

    def write(self, asked: Sequence[Asked], generator: torch.Generator) -> list[Written]:
        """One text a page. A control token ends it as the end token does: there the model takes another's part."""
        if not asked:
            return []
        tokenizer, sampling = self.loaded.tokenizer, self.recipe.sampling
        drawn = sample_responses(
            self.loaded.model,
            [one.ids for one in asked],
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            eos_id=tokenizer.eos_token_id,
            pad_id=tokenizer.pad_token_id,
            generator=generator,
        )
        token_ids = [ids[mask].tolist() for ids, mask in zip(drawn.ids_BR, drawn.mask_BR, strict=True)]
        ended = drawn.finished_B.tolist()
        return [self._written(*found) for found in zip(asked, token_ids, ended, strict=True)]

    def say_yes(self, asked: Sequence[Asked]) -> list[bool]:
        """Whether Yes is likelier than No as what follows on each page."""
        chances = [self._logprobs(asked, self._word_ids(word)) for word in (YES, NO)]
        return [of_yes > of_no for of_yes, of_no in zip(*chances, strict=True)]

    def _word_ids(self, word: str) -> list[int]:
        """Ids of a word behind what is asked; a page ends with a word, after which there is a space."""
        return ids_inside(word if self._chats else f" {word}", self.loaded.tokenizer)

    def _logprobs(self, asked: Sequence[Asked], answer: list[int]) -> list[float]:
        return answer_logprobs(
            self.loaded.model,
            [[*one.ids, *answer] for one in asked],
            [len(one.ids) for one in asked],
            batch_size=SCORED_TOGETHER,
            pad_id=self.loaded.tokenizer.pad_token_id,
        )

    def _written(self, asked: Asked, token_ids: list[int], ended: bool) -> Written:
        (text,) = decode_whole([token_ids], self.loaded.tokenizer)
        places = [text.find(token) for token in control_tokens(self.loaded.tokenizer) if token in text]
        text = text[: min(places, default=len(text))]
        return Written(text if self._chats else asked.page.begun + text, ended or bool(places))


def page_ids(page: Page, tokenizer: PreTrainedTokenizerBase, style: Literal["page", "chat"]) -> list[int]:
    """What the model is given: the page to be gone on with, or a question about it."""
    if style == "chat":
        return render_prompt([Turn("user", f"{page.text}\n{page.request}")], tokenizer)
    return one_bos(encode_texts([page.text + page.begun], tokenizer, plain=True)[0], tokenizer)
