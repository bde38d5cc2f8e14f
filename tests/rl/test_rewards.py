"""Reward sources: named right or told at once, weighted, shown the text they judge."""

import dataclasses

import pytest
import torch

from aligner.data.rows import Origin, Prompt, Turn
from aligner.errors import RecipeError
from aligner.models.heads import RewardStats, write_stats
from aligner.models.load import LoadedModel, save_model
from aligner.models.scoring import Scoring
from aligner.recipe.model import ModelSpec
from aligner.recipe.ppo import RewardSource
from aligner.rl.finite import Stopped
from aligner.rl.rewards import load_function, load_rewards
from aligner.rl.rollout import Rollout
from tests.models.runs import save_reward, write_base
from tests.models.test_scoring import answer_nats
from tests.tiny import tiny_model, tiny_tokenizer

HERE = "tests.rl.planted"


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def episodes(tokenizer, texts, finished):
    """A rollout of given answers; unfinished ones are padded with the end token on purpose."""
    eos = tokenizer.eos_token_id
    ids = [
        tokenizer.encode(t, add_special_tokens=False) + [eos] * done
        for t, done in zip(texts, finished, strict=True)
    ]
    width = max(map(len, ids))
    ids_BR = torch.tensor([row + [eos] * (width - len(row)) for row in ids])
    mask_BR = torch.arange(width) < torch.tensor([len(row) for row in ids])[:, None]
    rows = [Prompt(Origin("prompts.jsonl", i), (Turn("user", "?"),)) for i in range(len(texts))]
    rollout = Rollout([[5]] * len(texts), ids_BR, mask_BR, torch.zeros(mask_BR.shape), torch.tensor(finished))
    return rows, rollout


def rewards(tokenizer, *named):
    return load_rewards(
        [RewardSource(function=f"{HERE}:{name}", weight=weight) for name, weight in named], tokenizer
    )


def test_functions_see_rows_texts_and_endings(tokenizer):
    scores = rewards(tokenizer, ("kinds", 1.0))
    got = scores(scores.answered(*episodes(tokenizer, ["cat", "a house"], [True, False])))
    assert got.tolist() == [113.0, 107.0]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["head", "likelihood"])
def test_a_reward_model_scores_prompt_and_answer_on_its_own_scale(tokenizer, tmp_path, kind):
    if kind == "head":
        save_reward(tmp_path / "run", ModelSpec(base=str(write_base(tmp_path / "base"))))
    else:
        save_model(LoadedModel(tiny_model(), tokenizer, ""), tmp_path / "run/model", base_folder=tmp_path)
    stats = RewardStats(-2.0, 4.0, 8, Scoring(kind, 0.5))
    write_stats(tmp_path / "run" / "model", stats)
    scores = load_rewards([RewardSource(model=str(tmp_path / "run"), weight=3.0)], tokenizer)
    rows, rollout = episodes(tokenizer, ["cat", "a red house"], [True, False])
    rollout = dataclasses.replace(rollout, prompts=[[1, 5, 9], [5]])
    model = scores.parts[0].reward.model.model
    wanted = []
    for i, prompt in enumerate(rollout.prompts):
        ids = prompt + rollout.ids_BR[i][rollout.mask_BR[i]].tolist()
        head = kind == "head"
        raw = model(torch.tensor([ids])).logits[0, 0] if head else 0.5 * answer_nats(model, ids, len(prompt))
        wanted.append(3 * (raw.item() + 2) / 4)
    assert scores(scores.answered(rows, rollout)).tolist() == pytest.approx(wanted, abs=1e-5)


def test_weights_add_up(tokenizer):
    scores = rewards(tokenizer, ("vowels", 2.0), ("ones", -0.5))
    assert scores(
        scores.answered(*episodes(tokenizer, ["aab", "bb"], [True, True]))
    ).tolist() == pytest.approx([2 * 2 / 3 - 0.5, -0.5])


def test_control_tokens_in_the_middle_are_seen(tokenizer):
    scores = rewards(tokenizer, ("ones", 1.0))
    answered = scores.answered(*episodes(tokenizer, ["cat<|user|>dog"], [True]))
    assert "user" in answered.texts[0] and not answered.texts[0].endswith("|eos|>")


def test_a_reward_is_clipped_in_its_own_units_before_it_is_weighed(tokenizer):
    sources = [
        RewardSource(function=f"{HERE}:kinds", clip=110.0, weight=2.0),
        RewardSource(function=f"{HERE}:ones", weight=-3.0, clip=0.5),
    ]
    scores = load_rewards(sources, tokenizer)
    got = scores(scores.answered(*episodes(tokenizer, ["cat", "a house"], [True, False])))
    assert got.tolist() == [2 * 110 - 1.5, 2 * 107 - 1.5]  # 113 and 107 before


def test_a_dense_function_rewards_every_token(tokenizer):
    texts, finished = ["cat", "a red house"], [True, False]
    sources = [
        RewardSource(function=f"{HERE}:long_tokens", dense=True, weight=0.5, clip=3.0),
        RewardSource(function=f"{HERE}:ones"),
    ]
    scores = load_rewards(sources, tokenizer)
    answered = scores.answered(*episodes(tokenizer, texts, finished))
    earned = scores.earned(answered)
    for i, text in enumerate(texts):
        pieces = [tokenizer.decode([token]) for token in tokenizer.encode(text, add_special_tokens=False)]
        want = [0.5 * min(len(piece), 3) for piece in pieces] + [0.0] * finished[i]
        want += [0.0] * (answered.rollout.ids_BR.shape[1] - len(want))
        assert earned.tokens_BR[i].tolist() == want
    assert earned.scores_B.tolist() == [1.0, 1.0]
    torch.testing.assert_close(scores(answered), 1.0 + earned.tokens_BR.sum(1))
    with pytest.raises(ValueError, match="for a function alone"):
        RewardSource(model="run", dense=True)


def test_a_dense_function_owes_one_number_a_token(tokenizer):
    scores = load_rewards([RewardSource(function=f"{HERE}:one_token_short", dense=True)], tokenizer)
    with pytest.raises(RecipeError, match="one float per token"):
        scores(scores.answered(*episodes(tokenizer, ["a cat", "b"], [True, True])))


RULES = """\
{"rule": "no_apology", "forbids": "[Ss]orry", "weight": 2}

{"rule": "ends_with_a_stop", "requires": "[.!?]$"}
"""


def test_rules_cost_their_weight_once_each(tokenizer, tmp_path):
    (tmp_path / "rules.jsonl").write_text(RULES)
    scores = load_rewards([RewardSource(rules=str(tmp_path / "rules.jsonl"), weight=0.5)], tokenizer)
    texts = ["Yes.", "No", "Sorry, sorry.", "I am sorry"]
    answered = dataclasses.replace(scores.answered(*episodes(tokenizer, texts, [True] * 4)), texts=texts)
    assert scores(answered).tolist() == [0.0, -0.5, -1.0, -1.5]
    (tmp_path / "same.jsonl").write_text(RULES)
    (tmp_path / "other.jsonl").write_text(RULES.replace("2", "3"))
    content = [
        load_rewards([RewardSource(rules=str(tmp_path / name))], tokenizer)
        .identities()["reward.0"]
        .split("#")[1]
        for name in ("rules.jsonl", "same.jsonl", "other.jsonl")
    ]
    assert content[0] == content[1] != content[2]


def test_every_line_that_is_no_rule_is_told_with_its_place(tokenizer, tmp_path):
    path = tmp_path / "rules.jsonl"
    lines = [
        '{"rule": "a", "forbids": "("}',
        '{"rule": "b", "forbid": "x"}',
        "not json",
        '{"rule": "c", "requires": "x", "weight": -1}',
        '{"rule": "d"}',
        '{"rule": "e", "requires": "x", "forbids": "y"}',
        "[1]",
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(RecipeError) as caught:
        load_rewards([RewardSource(rules=str(path)), RewardSource(function=f"{HERE}:vowel")], tokenizer)
    assert [p.where for p in caught.value.problems[:-1]] == [f"{path}:{n}" for n in range(1, 8)]
    assert (
        'did you mean "forbids"?' in str(caught.value)
        and caught.value.problems[-1].where == "reward.1.function"
    )
    for text, word in (("\n", "no rule in it"), (RULES + RULES, "two rules are called")):
        path.write_text(text)
        with pytest.raises(RecipeError, match=word):
            load_rewards([RewardSource(rules=str(path))], tokenizer)


@pytest.mark.parametrize(
    "kinds", [{}, {"model": "a", "rules": "b"}, {"function": "a:b", "http": {"url": "http://x"}}]
)
def test_a_reward_is_of_one_kind(kinds):
    with pytest.raises(ValueError, match="one of model, function, rules and http"):
        RewardSource.model_validate(kinds)


@pytest.mark.parametrize(
    ("name", "word"), [("too_few", "1 numbers for 2"), ("not_a_number", "nan"), ("words", "'good'")]
)
def test_a_function_that_gives_nonsense_is_named(tokenizer, name, word):
    scores = rewards(tokenizer, (name, 1.0))
    with pytest.raises(Stopped if word == "nan" else RecipeError, match=word):
        scores(scores.answered(*episodes(tokenizer, ["a", "b"], [True, True])))


def test_all_wrong_names_are_told_at_once_with_the_nearest(tokenizer):
    sources = [
        RewardSource(function=name)
        for name in (f"{HERE}:vowel", "no_such_module:f", "justaname", f"{HERE}:ones")
    ]
    with pytest.raises(RecipeError) as caught:
        load_rewards(sources, tokenizer)
    text = str(caught.value)
    assert 'did you mean "vowels"?' in text and "no_such_module" in text and 'write "module:function"' in text
    assert [p.where for p in caught.value.problems] == [f"reward.{i}.function" for i in range(3)]


def test_modules_of_the_working_folder_are_found(tmp_path, monkeypatch):
    (tmp_path / "my_own_rewards.py").write_text(
        "def f(rows, responses, finished):\n    return [0.5 for _ in rows]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load_function("my_own_rewards:f")([1, 2], [], []) == [0.5, 0.5]
