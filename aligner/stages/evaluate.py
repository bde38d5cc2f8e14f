"""Evaluation: the same questions to several models; the reference first, the others against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from aligner.data.rows import Document
from aligner.data.tokens import PairRow, PromptRow
from aligner.errors import Interrupted, Problem
from aligner.evals import suites
from aligner.evals.preference import calibration_error, own_samples_accuracy, pairs_of_samples
from aligner.evals.suites import Decoding, PromptAnswers, Results, Subject, named
from aligner.evals.versus import (
    best_of_n,
    best_of_n_kl,
    chosen_mean,
    gap_closed_share,
    paired_difference,
    prompt_means,
)
from aligner.models.heads import RewardModel
from aligner.models.load import load_trained
from aligner.models.sources import resolve_source
from aligner.models.wrapped import context_length
from aligner.recipe.evaluate import EvaluateRecipe
from aligner.run.folder import RunFolder
from aligner.run.parts import Parts
from aligner.run.progress import Bar, progress
from aligner.run.seed import seed_everything
from aligner.stages.judge import Judge
from aligner.stages.questions import Questions, read_questions
from aligner.stages.stage import StageResult

Scores = list[list[float]]  # by prompt, one score a sample


@dataclass(frozen=True)
class OnPrompts:
    """What a model said to the prompts suite and what that is worth; scores are empty where there is no such judge."""

    subject: Subject
    rows: list[PromptRow]
    answers: PromptAnswers
    gold: Scores
    greedy_gold: list[float]
    proxy: Scores


def evaluate(recipe: EvaluateRecipe, run: RunFolder) -> StageResult:
    """Measure every model of the recipe on every suite; `evals/` says what each number means.

    Interrupted, it keeps the suites that are finished; only sampled answers are drawn again, since models are compared
    on them.
    """
    seed_everything(recipe.seed)
    judge = Judge(recipe, RewardModel.from_folder(recipe.reward)) if recipe.reward else None
    order = sorted(recipe.models, key=lambda name: name != recipe.reference)
    named_models = recipe.models | ({"reward": recipe.reward} if recipe.reward else {})
    parents = {name: resolve_source(path).identity for name, path in named_models.items()}
    with progress("evaluate", len(order) * _num_suites(recipe)) as bar:
        evaluation: _Evaluation | None = None
        for name in order:
            loaded = load_trained(recipe.models[name])
            subject = Subject(name, loaded.model, loaded.tokenizer, context_length(loaded.model))
            questions = read_questions(recipe, subject.tokenizer, context=subject.context)
            if judge:
                judge.check(subject, questions)
            if evaluation is None:
                run.start(parents=parents, data=questions.data, seed=recipe.seed)
                measured_on = {"parents": parents, "data": questions.data}
                evaluation = _Evaluation(recipe, judge, bar, Parts(run.checkpoints, measured_on=measured_on))
            with _telling(run, evaluation.parts):
                evaluation.measure(subject, questions)
    assert evaluation is not None, "a recipe has a model"
    seen = {name: evaluation.on_prompts[name] for name in recipe.models if name in evaluation.on_prompts}
    if seen:
        run.samples.append(_side_by_side(seen))
    areas = list(named_models)  # told in the recipe's order, not in that of measuring
    told = sorted(evaluation.results, key=lambda key: areas.index(key.partition("/")[0]))
    return StageResult(artifact=None, results={key: evaluation.results[key] for key in told})


@contextmanager
def _telling(run: RunFolder, parts: Parts) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        fault = f"stopped; {len(parts)} finished parts are kept"
        raise Interrupted(Problem(str(run.path), fault, "the same command goes on from there")) from None


@dataclass
class _Evaluation:
    """Results as they come in, and what later models are compared with."""

    recipe: EvaluateRecipe
    judge: Judge | None
    bar: Bar
    parts: Parts
    results: Results = field(default_factory=dict)
    on_prompts: dict[str, OnPrompts] = field(default_factory=dict)

    @property
    def decoding(self) -> Decoding:
        sampling = self.recipe.sampling
        return Decoding(sampling.max_new_tokens, sampling.temperature, self.recipe.seed)

    @property
    def reference(self) -> OnPrompts | None:
        return self.on_prompts.get(self.recipe.reference or "")

    def measure(self, subject: Subject, questions: Questions) -> None:
        """All suites of one model."""
        if questions.documents:
            self._keep(subject, "documents", lambda: self._on_documents(subject, questions.documents))
        for suite, rows in questions.tasks.items():
            measure = partial(self._on_tasks, subject, suite, rows, questions.examples)
            self._keep(subject, f"tasks.{suite}", measure)
        if questions.pairs:
            self._keep(subject, "pairs", lambda: self._on_pairs(subject, questions.pairs))
        if questions.prompts:
            self._note(named(subject.name, self._on_prompts(subject, questions.prompts)))

    def _keep(self, subject: Subject, suite: str, measure: Callable[[], Results]) -> None:
        self._note(self.parts.result(f"{subject.name}/{suite}", measure))

    def _note(self, results: Results) -> None:
        self.results |= results
        self.bar.advance(1)

    def _on_documents(self, subject: Subject, documents: Sequence[Document]) -> Results:
        found = suites.measure_documents(subject, documents, batch_size=self.recipe.rows_per_device)
        return named(subject.name, found)

    def _on_tasks(
        self, subject: Subject, suite: str, rows: list[PromptRow], examples: Sequence[PromptRow]
    ) -> Results:
        spec = self.recipe.suites
        found = suites.measure_tasks(subject, suite, rows, self.decoding)
        if spec.answer_nats:
            batch = self.recipe.rows_per_device
            found |= suites.measure_accepted(subject, suite, rows, batch_size=batch)
        if subject.name in spec.few_shot:
            prompts, solved = [row.prompt for row in rows], [row.prompt for row in examples]
            found |= suites.measure_few_shot(subject, suite, prompts, solved, self.decoding, shots=spec.shots)
        return named(subject.name, found)

    def _on_pairs(self, subject: Subject, pairs: Sequence[PairRow]) -> Results:
        """The model's own log-likelihood as a judge; the reward model once, on the first model's rows."""
        found: Results = {}
        if self.judge and "reward/accuracy_share" not in self.results:
            read, margins = self.judge.on_pairs(subject, pairs)
            found = named("reward", suites.accuracy_results(margins, read))
            found["reward/calibration_error_share"] = calibration_error(margins)
        margins = suites.likelihood_margins(subject, pairs, batch_size=self.recipe.rows_per_device)
        return found | named(subject.name, suites.accuracy_results(margins, pairs, prefix="likelihood_"))

    def _on_prompts(self, subject: Subject, rows: list[PromptRow]) -> Results:
        """Sampled and greedy answers: what they look like, what they are worth, how far from the reference they are."""
        spec = self.recipe.suites
        is_reference = subject.name == self.recipe.reference
        samples = max(spec.samples_per_prompt, spec.best_of if is_reference else 0)
        answers = suites.answer_prompts(subject, rows, self.decoding, samples=samples)
        found = self.on_prompts[subject.name] = self._judged(subject, rows, answers)
        results = suites.describe_answers(rows, answers, samples=spec.samples_per_prompt)
        if found.gold:
            results["gold_reward"] = float(prompt_means(found.gold).mean())
            results["gold_reward_greedy"] = sum(found.greedy_gold) / len(found.greedy_gold)
        if found.proxy:
            results["proxy_reward"] = float(prompt_means(found.proxy).mean())
        if is_reference:
            self._best_of_reference(found, results)
        elif self.reference:
            results |= self._against(self.reference, found)
        return results

    def _judged(self, subject: Subject, rows: list[PromptRow], answers: PromptAnswers) -> OnPrompts:
        gold: Scores = []
        greedy_gold: list[float] = []
        if suites.has_gold(rows):
            gold = _by_prompt([suites.gold_of_answers(rows, part) for part in answers.samples])
            greedy_gold = suites.gold_of_answers(rows, answers.greedy)
        samples = self.judge.of_samples(subject, rows, answers.samples) if self.judge else []
        proxy = _by_prompt(samples)
        return OnPrompts(subject, rows, answers, gold, greedy_gold, proxy)

    def _best_of_reference(self, reference: OnPrompts, results: Results) -> None:
        """Best of n by gold, and the reward model against the model's own likelihood on its own samples."""
        n = self.recipe.suites.best_of
        if reference.gold and n:
            results[f"best_of_{n}_gold_reward"] = best_of_n(reference.gold, n)
        if reference.proxy and n:
            results |= _chosen(reference, n)
        if not (reference.gold and reference.proxy):
            return
        samples = reference.answers.samples
        pairs = pairs_of_samples(_by_prompt([part.texts for part in samples]), reference.gold)
        likelihood = _by_prompt([part.logprobs for part in samples])
        own = own_samples_accuracy(pairs, reference.proxy, likelihood, seed=self.recipe.seed)
        if own is not None:
            for kind, accuracy in (
                ("accuracy", own.reward),
                ("likelihood", own.likelihood),
                ("gain", own.gain),
            ):
                self.results[f"reward/own_samples_{kind}_share"] = accuracy.share
                self.results[f"reward/own_samples_{kind}_low_share"] = accuracy.low
                self.results[f"reward/own_samples_{kind}_high_share"] = accuracy.high
            self.results["reward/own_samples_pairs"] = float(own.reward.count)

    def _against(self, reference: OnPrompts, found: OnPrompts) -> Results:
        """KL to the reference, and paired differences to it in gold (or, without gold, in learned reward)."""
        batch = self.recipe.rows_per_device
        kl = suites.kl_to(reference.subject, found.rows, found.answers, self.decoding, batch_size=batch)
        results: Results = {"kl_nats_per_response": kl}
        for judge, own, other in (
            ("gold", found.gold, reference.gold),
            ("proxy", found.proxy, reference.proxy),
        ):
            if own and other:
                gain = paired_difference(own, other, seed=self.recipe.seed)
                results |= {
                    f"{judge}_gain": gain.mean,
                    f"{judge}_gain_low": gain.low,
                    f"{judge}_gain_high": gain.high,
                }
        n = self.recipe.suites.best_of
        if found.gold and reference.gold and n:
            model, base = (float(prompt_means(scores).mean()) for scores in (found.gold, reference.gold))
            share = gap_closed_share(model, base, best_of_n(reference.gold, n))
            if share is not None:
                results["gap_closed_share"] = share
        return results


def _chosen(found: OnPrompts, most: int) -> Results:
    """Best of n by the learned reward, for n = 1, 2, 4, ... up to `most`: what choosing gives, and at what KL."""
    results: Results = {}
    for n in sorted({2**power for power in range(most.bit_length())} | {most}):
        results[f"chosen_kl_nats[best of {n}]"] = best_of_n_kl(n)
        results[f"chosen_proxy_reward[best of {n}]"] = chosen_mean(found.proxy, found.proxy, n)
        if found.gold:
            results[f"chosen_gold_reward[best of {n}]"] = chosen_mean(found.proxy, found.gold, n)
    return results


def _by_prompt(by_sample: Sequence[Sequence]) -> list[list]:  # type: ignore[type-arg]
    """From one list a sample to one list a prompt."""
    return [list(values) for values in zip(*by_sample, strict=True)]


def _side_by_side(seen: dict[str, OnPrompts]) -> list[dict[str, object]]:
    """Rows of samples.jsonl: each prompt with every model's greedy answer and its gold reward."""
    first = next(iter(seen.values()))
    return [
        {
            "prompt": "\n".join(turn.content for turn in row.prompt.turns),
            "family": row.prompt.family,
            "gold": dict(row.prompt.gold),
            "responses": {name: found.answers.greedy.texts[i] for name, found in seen.items()},
            "gold_rewards": {name: found.greedy_gold[i] for name, found in seen.items() if found.greedy_gold},
        }
        for i, row in enumerate(first.rows)
    ]


def _num_suites(recipe: EvaluateRecipe) -> int:
    spec = recipe.suites
    return len(spec.tasks) + sum(bool(part) for part in (spec.documents, spec.pairs, spec.prompts))
