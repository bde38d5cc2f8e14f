"""Suites: what is measured of one model, as numbers by metric name (the stage puts the model's name before them).

Every function takes a `Subject`, rows that are ready, and plain settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from aligner.data.rows import Document, Prompt
from aligner.data.tokens import PairRow, PromptRow
from aligner.evals.accepted import accepted_nats, by_family
from aligner.evals.answers import Answers, sample_answers
from aligner.evals.gold_rows import gold_of, score_rows, withheld_shares
from aligner.evals.likelihood import answer_logprobs
from aligner.evals.perplexity import bits_per_byte
from aligner.evals.preference import Accuracy, accuracy_by_kind, pair_accuracy, prompts_of
from aligner.evals.responses import response_statistics
from aligner.evals.tasks import STYLES, Style, few_shot_prompts, first_line, line_end, score_tasks

Results = dict[str, float]
Value = TypeVar("Value")
SAMPLE_BATCH = 256


@dataclass(frozen=True)
class Subject:
    """A model under measurement; `context` is the longest sequence it can read, in tokens."""

    name: str
    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    context: int


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn; the same seed for every model."""

    max_new_tokens: int
    temperature: float
    seed: int


@dataclass(frozen=True)
class PromptAnswers:
    """A model's answers to the prompts suite: the greedy ones, and sets of one sample a prompt."""

    greedy: Answers
    samples: list[Answers]


def measure_documents(subject: Subject, documents: Sequence[Document], *, batch_size: int) -> Results:
    """Bits per byte of held-out documents."""
    block_length = min(subject.context, 1024)
    scored = bits_per_byte(
        subject.model, subject.tokenizer, documents, block_length=block_length, batch_size=batch_size
    )
    return {"bits_per_byte": scored.bits}


def measure_tasks(subject: Subject, suite: str, rows: Sequence[PromptRow], decoding: Decoding) -> Results:
    """Exact match and mean gold reward of greedy answers to chat prompts; exact match of each family as well."""
    answers = answer(subject, rows, decoding, greedy=True)
    scores = score_tasks([row.prompt for row in rows], answers.texts)
    families = {f"exact_match_share[{suite}.{family}]": share for family, share in scores.families.items()}
    gold = gold_of_answers(rows, answers)
    return {
        f"exact_match_share[{suite}]": scores.share,
        f"gold_reward_greedy[{suite}]": sum(gold) / len(gold),
    } | families


def measure_accepted(subject: Subject, suite: str, rows: Sequence[PromptRow], *, batch_size: int) -> Results:
    """`accepted_nats`, mean over the rows that name an accepted answer, and of each family of them."""
    prompts = [row.prompt for row in rows if gold_of(row.prompt).answers]
    if not prompts:
        return {}
    nats = accepted_nats(
        subject.model, subject.tokenizer, prompts, max_length=subject.context, batch_size=batch_size
    )
    families = {f"answer_nats[{suite}.{name}]": value for name, value in by_family(prompts, nats).items()}
    return {f"answer_nats[{suite}]": sum(nats) / len(nats)} | families


def measure_few_shot(
    subject: Subject,
    suite: str,
    rows: Sequence[Prompt],
    examples: Sequence[Prompt],
    decoding: Decoding,
    *,
    shots: Sequence[int],
) -> Results:
    """Exact match behind solved examples: the better of the two styles for each number of shots, and the best of all.

    The best is picked on the very rows it is reported for, which favours this model; as a baseline it may be.
    """
    found = {}
    for num_shots in shots:
        shares = [_few_shot_share(subject, rows, examples, decoding, num_shots, style) for style in STYLES]
        found[f"few_shot_exact_match_share[{suite}.{num_shots}]"] = max(shares)
    return {f"few_shot_exact_match_share[{suite}]": max(found.values())} | found


def _few_shot_share(
    subject: Subject,
    rows: Sequence[Prompt],
    examples: Sequence[Prompt],
    decoding: Decoding,
    shots: int,
    style: Style,
) -> float:
    prompts = few_shot_prompts(
        rows,
        examples,
        subject.tokenizer,
        shots=shots,
        style=style,
        max_tokens=subject.context - decoding.max_new_tokens,
        seed=decoding.seed,
    )
    stop_id = line_end(subject.tokenizer) if style == "page" else None
    texts = _sampled(subject, prompts, decoding, greedy=True, stop_id=stop_id).texts
    return score_tasks(rows, [first_line(text) for text in texts] if style == "page" else texts).share


def answer(subject: Subject, rows: Sequence[PromptRow], decoding: Decoding, *, greedy: bool) -> Answers:
    """One answer to each row's chat prompt."""
    return _sampled(subject, [row.input_ids for row in rows], decoding, greedy=greedy)


def answer_prompts(
    subject: Subject, rows: Sequence[PromptRow], decoding: Decoding, *, samples: int
) -> PromptAnswers:
    """The greedy answer to each prompt, and `samples` sampled ones."""
    drawn = answer(subject, list(rows) * samples, decoding, greedy=False)
    size = len(rows)
    parts = [drawn.part(at, at + size) for at in range(0, size * samples, size)]
    return PromptAnswers(answer(subject, rows, decoding, greedy=True), parts)


def _sampled(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    greedy: bool,
    stop_id: int | None = None,
) -> Answers:
    return sample_answers(
        subject.model,
        subject.tokenizer,
        prompts,
        max_new_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        greedy=greedy,
        seed=decoding.seed,
        batch_size=SAMPLE_BATCH,
        stop_id=stop_id,
    )


def describe_answers(rows: Sequence[PromptRow], answers: PromptAnswers, *, samples: int) -> Results:
    """Length, endings, repetition and variety over the first `samples` samples; with gold, answers withheld."""
    used = answers.samples[:samples]
    texts, finished = _flat([part.texts for part in used]), _flat([part.finished for part in used])
    statistics = response_statistics(texts, _flat([part.token_ids for part in used]), finished)
    found = {
        "response_tokens": statistics.tokens,
        "finished_share": statistics.finished,
        "repetition_share": statistics.repetition,
        "distinct_share": statistics.distinct,
    }
    if not has_gold(rows):
        return found
    prompts = [row.prompt for row in rows] * len(used)
    withheld = withheld_shares(prompts, texts, finished)
    if withheld is None:
        return found
    return found | {
        "unknown_share": withheld.abstained,
        "refusal_share": withheld.declined,
        "abstained_answerable_share": withheld.abstained + withheld.declined,
    }


def has_gold(rows: Sequence[PromptRow]) -> bool:
    """Whether every prompt says which answers are right."""
    return all(row.prompt.gold for row in rows)


def gold_of_answers(rows: Sequence[PromptRow], answers: Answers) -> list[float]:
    """Gold reward of one answer a row."""
    return score_rows([row.prompt for row in rows], answers.texts, answers.finished)


def kl_to(
    reference: Subject,
    rows: Sequence[PromptRow],
    answers: PromptAnswers,
    decoding: Decoding,
    *,
    batch_size: int,
) -> float:
    """KL(model || reference) in nats per response: mean of log p - log p_ref over the model's own samples.

    Both under softmax(logits / temperature), the distribution that was sampled from.
    """
    sequences = [
        [*row.input_ids, *ids]
        for part in answers.samples
        for row, ids in zip(rows, part.token_ids, strict=True)
    ]
    lengths = [len(row.input_ids) for _ in answers.samples for row in rows]
    under_reference = answer_logprobs(
        reference.model,
        sequences,
        lengths,
        batch_size=batch_size,
        pad_id=reference.tokenizer.pad_token_id,
        temperature=decoding.temperature,
    )
    own = _flat([part.logprobs for part in answers.samples])
    return sum(p - q for p, q in zip(own, under_reference, strict=True)) / len(own)


def likelihood_margins(subject: Subject, pairs: Sequence[PairRow], *, batch_size: int) -> list[float]:
    """log p(chosen) - log p(rejected) of each pair's answers, in nats."""
    sequences = [ids for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
    lengths = [pair.prompt_length for pair in pairs for _ in range(2)]
    scores = answer_logprobs(
        subject.model, sequences, lengths, batch_size=batch_size, pad_id=subject.tokenizer.pad_token_id
    )
    return [chosen - rejected for chosen, rejected in zip(scores[::2], scores[1::2], strict=True)]


def accuracy_results(margins: Sequence[float], pairs: Sequence[PairRow], *, prefix: str = "") -> Results:
    """Pooled pair accuracy with its interval, and the same for each kind."""
    kinds, prompts = [pair.kind for pair in pairs], prompts_of(pairs)
    found = accuracy_result(pair_accuracy(margins, prompts), prefix=prefix)
    for kind, accuracy in accuracy_by_kind(margins, kinds, prompts).items():
        found |= accuracy_result(accuracy, prefix=prefix, qualifier=f"[{kind}]")
    return found


def accuracy_result(accuracy: Accuracy, *, prefix: str = "", qualifier: str = "") -> Results:
    """`accuracy_share`, `accuracy_low_share`, `accuracy_high_share` and `pairs` of one accuracy."""
    return {
        f"{prefix}accuracy_share{qualifier}": accuracy.share,
        f"{prefix}accuracy_low_share{qualifier}": accuracy.low,
        f"{prefix}accuracy_high_share{qualifier}": accuracy.high,
        f"{prefix}pairs{qualifier}": float(accuracy.count),
    }


def named(area: str, results: Mapping[str, float]) -> Results:
    """Results under an area: `area/metric`."""
    return {f"{area}/{metric}": value for metric, value in results.items()}


def _flat(parts: Sequence[Sequence[Value]]) -> list[Value]:
    return [value for part in parts for value in part]
