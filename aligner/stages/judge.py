"""A reward model as an evaluation asks it: by the tokens of the model that answered, or by its own of the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aligner.data.answers import check_prompts
from aligner.data.tokens import PairRow, PromptRow
from aligner.evals.answers import Answers
from aligner.evals.suites import Subject
from aligner.models.heads import RewardModel
from aligner.models.wrapped import context_length
from aligner.recipe.evaluate import EvaluateRecipe
from aligner.rl.rewards import ModelReward
from aligner.run.progress import say
from aligner.stages.questions import Questions, read_pairs


@dataclass(frozen=True)
class Judge:
    """The reward model of an evaluation."""

    recipe: EvaluateRecipe
    reward: RewardModel

    def reads_texts(self, subject: Subject) -> bool:
        """Whether it spells or frames text otherwise than a model does, so that it cannot read that one's tokens."""
        own, other = self.reward.tokenizer, subject.tokenizer
        return own.get_vocab() != other.get_vocab() or own.chat_template != other.chat_template

    def check(self, subject: Subject, questions: Questions) -> None:
        """Say how it reads a model's answers; DataError where its chat template refuses a prompt of theirs."""
        if self.reads_texts(subject):
            say(f"reward: it reads what {subject.name} says as texts, by its own tokenizer")
            check_prompts([row.prompt for row in questions.prompts], self.reward.tokenizer)

    def on_pairs(self, subject: Subject, pairs: Sequence[PairRow]) -> tuple[Sequence[PairRow], list[float]]:
        """The pairs as it reads them, and score(chosen) - score(rejected) of each."""
        if self.reads_texts(subject):
            context = context_length(self.reward.model)
            pairs = read_pairs(self.recipe, self.reward.tokenizer, context=context).train
        lengths = [pair.prompt_length for pair in pairs]
        chosen = self._scores([pair.chosen_ids for pair in pairs], lengths)
        rejected = self._scores([pair.rejected_ids for pair in pairs], lengths)
        return pairs, [better - worse for better, worse in zip(chosen, rejected, strict=True)]

    def of_samples(
        self, subject: Subject, rows: Sequence[PromptRow], samples: Sequence[Answers]
    ) -> list[list[float]]:
        """Normalised rewards, a list for each set of one answer a prompt."""
        sequences: list[list[int]] = []
        lengths: list[int] = []
        for part in samples:
            ids, prompt_lengths = self._sequences(subject, rows, part)
            sequences += ids
            lengths += prompt_lengths
        flat = self.reward.normalised(sequences, lengths).tolist()
        return [flat[at : at + len(rows)] for at in range(0, len(flat), len(rows))]

    def _sequences(
        self, subject: Subject, rows: Sequence[PromptRow], answers: Answers
    ) -> tuple[list[list[int]], list[int]]:
        """Prompts with their answers in the tokens that it reads, and how many of each are the prompt's."""
        if self.reads_texts(subject):
            prompts = [row.prompt for row in rows]
            return ModelReward(self.reward, by_text=True).rendered(prompts, answers.texts, answers.finished)
        together = zip(rows, answers.token_ids, strict=True)
        return [[*row.input_ids, *ids] for row, ids in together], [len(row.input_ids) for row in rows]

    def _scores(self, sequences: list[list[int]], prompt_lengths: list[int]) -> list[float]:
        batch = self.recipe.rows_per_device
        return self.reward.score(sequences, prompt_lengths, batch_size=batch).tolist()  # type: ignore[no-any-return]
