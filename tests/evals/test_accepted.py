"""The probability of accepted answers, against a sum of products over one plain forward pass an answer."""

from __future__ import annotations

import math

import pytest
import torch

from aligner.data.rows import Origin, Prompt, Turn
from aligner.data.tokens import PromptRow, render_prompt
from aligner.evals.accepted import accepted_nats
from aligner.evals.suites import Subject, measure_accepted
from tests.tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(TOKENIZER)


def row(question: str, *answers: str, family: str = "color") -> Prompt:
    gold = {"kind": "answerable", "answers": list(answers)}
    return Prompt(Origin("test", 1), (Turn("user", question),), family, gold)


def probability(question: str, answer: str) -> float:
    """p(answer and its end | question), token by token."""
    prompt = render_prompt((Turn("user", question),), TOKENIZER)
    said = f" {answer}"  # the template writes a space before it
    given = [*TOKENIZER.encode(said, add_special_tokens=False), TOKENIZER.eos_token_id]
    with torch.no_grad():
        logits = MODEL(input_ids=torch.tensor([prompt + given])).logits[0].double()
    each = logits.softmax(dim=1)
    return math.prod(float(each[len(prompt) - 1 + t, token]) for t, token in enumerate(given))


def test_accepted_answers_add_up_and_one_named_twice_counts_once():
    rows = [row("Is it red?", "red.", "It is red.", "red."), row("How old?", "12")]
    found = accepted_nats(MODEL, TOKENIZER, rows, max_length=64, batch_size=2)
    both = probability("Is it red?", "red.") + probability("Is it red?", "It is red.")
    assert found == pytest.approx([-math.log(both), -math.log(probability("How old?", "12"))], rel=1e-5)


def test_means_by_family_leave_rows_without_an_answer_out():
    prompts = [row("a?", "b"), row("c?"), row("d?", "e", family="number"), row("f?", "gg")]
    rows = [PromptRow(render_prompt(prompt.turns, TOKENIZER), prompt) for prompt in prompts]
    found = measure_accepted(Subject("x", MODEL, TOKENIZER, 64), "items", rows, batch_size=8)
    nats = [-math.log(probability(q, a)) for q, a in (("a?", "b"), ("d?", "e"), ("f?", "gg"))]
    assert found == pytest.approx(
        {
            "answer_nats[items]": sum(nats) / 3,
            "answer_nats[items.color]": (nats[0] + nats[2]) / 2,
            "answer_nats[items.number]": nats[1],
        },
        rel=1e-5,
    )
