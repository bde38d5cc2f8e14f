"""Exact match by family, few-shot prompts, decoding, and the gold judge over rows."""

from __future__ import annotations

import pytest

from aligner.data.rows import Origin, Prompt, Turn
from aligner.errors import DataError
from aligner.evals.answers import sample_answers
from aligner.evals.gold_rows import score_rows, withheld_shares
from aligner.evals.tasks import Style, few_shot_prompts, first_line, line_end, score_tasks
from tests.tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def row(question: str, *answers: str, family: str = "color", kind: str = "answerable") -> Prompt:
    gold = {"kind": kind, "answers": list(answers)}
    return Prompt(Origin("test", 1), (Turn("user", question),), family, gold)


SOLVED = [row(f"What is {n}?", f"{n}.", family="number") for n in range(5)] + [row("Is it red?", "yes.")]


def test_exact_match_by_family():
    rows = [row("a?", "red."), row("b?", "blue."), row("c?", "7.", family="number")]
    scores = score_tasks(rows, ["Red", "red.", "The answer is 7."])
    assert scores.share == pytest.approx(2 / 3)
    assert scores.families == {"color": 0.5, "number": 1.0}
    assert scores.rows == 3


def test_a_task_row_without_gold_is_told():
    with pytest.raises(DataError, match="test:1: the prompt has no gold answer"):
        score_tasks([Prompt(Origin("test", 1), (Turn("user", "a?"),))], ["x"])


def test_pages_show_solved_examples_of_the_family():
    ids = few_shot_prompts(
        [row("What is 9?", "9.", family="number")],
        SOLVED,
        TOKENIZER,
        shots=2,
        style="page",
        max_tokens=400,
        seed=0,
    )[0]
    assert ids[0] == TOKENIZER.bos_token_id
    lines = TOKENIZER.decode(ids[1:]).split("\n")
    assert lines[4:] == ["Q: What is 9?", "A:"]
    questions, answers = lines[0:4:2], lines[1:4:2]
    numbers = [question.removeprefix("Q: What is ").removesuffix("?") for question in questions]
    assert answers == [f"A: {number}." for number in numbers]
    assert len(set(numbers)) == 2 and set(numbers) <= set("01234")


def test_chats_show_them_as_earlier_turns():
    ids = few_shot_prompts(
        [row("What is 9?", "9.")], SOLVED, TOKENIZER, shots=1, style="chat", max_tokens=400, seed=0
    )[0]
    assert (
        TOKENIZER.decode(ids)
        == "<|bos|><|user|> Is it red?<|assistant|> yes.<|eos|><|user|> What is 9?<|assistant|>"
    )


@pytest.mark.parametrize("style", ["page", "chat"])
def test_examples_that_do_not_fit_are_left_out(style: Style):
    question = [row("What is 9?", "9.", family="number")]
    whole, alone = (
        few_shot_prompts(question, SOLVED, TOKENIZER, shots=shots, style=style, max_tokens=400, seed=0)[0]
        for shots in (3, 0)
    )
    cut = few_shot_prompts(
        question, SOLVED, TOKENIZER, shots=3, style=style, max_tokens=len(whole) - 1, seed=0
    )[0]
    assert len(alone) < len(cut) < len(whole)
    assert cut[-len(alone) + 1 :] == alone[1:] == whole[-len(alone) + 1 :]


def test_a_page_is_answered_up_to_its_line_end():
    assert first_line(" red.\nQ: What") == "red."
    assert TOKENIZER.decode([line_end(TOKENIZER)]) == "\n"


def test_sampled_answers_are_seeded_and_greedy_ones_alike():
    model = tiny_model(TOKENIZER)
    prompts = [[1, 20, 30], [1, 40, 50, 60]]
    draw = lambda seed, **more: sample_answers(model, TOKENIZER, prompts, max_new_tokens=6, seed=seed, **more)  # noqa: E731
    assert draw(0) == draw(0)
    assert draw(0).token_ids != draw(1).token_ids
    assert draw(0, greedy=True).token_ids == draw(1, greedy=True).token_ids
    assert [len(ids) for ids in draw(0).token_ids] <= [6, 6]


def test_gold_rewards_of_rows_and_answers_withheld():
    rows = [row("a?", "red."), row("a?", "red."), row("b?", kind="unanswerable"), row("c?", "red.")]
    responses = ["red.", "I do not know.", "I do not know.", "I can not help with that."]
    assert score_rows(rows, responses, [True] * 4) == [1.0, 0.0, 1.0, -0.5]
    withheld = withheld_shares(rows, responses, [True] * 4)
    assert withheld is not None
    assert (withheld.abstained, withheld.declined) == pytest.approx((1 / 3, 1 / 3))
    assert withheld_shares(rows[2:3], responses[2:3], [True]) is None
