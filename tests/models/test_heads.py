"""Reward models and value heads."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from aligner.errors import ModelError
from aligner.models.heads import RewardModel, RewardStats, ValueHead, read_stats, write_stats
from aligner.models.padding import left_padded, right_padded
from aligner.models.scoring import Scoring, pooled_scores
from tests.models.test_adapters import stirred
from tests.tiny import tiny_model, tiny_tokenizer

CPU = torch.device("cpu")
SEQUENCES = [
    [1, 4, 9, 30, 5],
    [1, 4, 9],
    [1, 4, 77, 80, 2, 2],
    [1, 4, 8, 0, 0],
]  # the last one ends in pad ids that count
LENGTHS = [2, 1, 3, 2]


def scorer(architecture: str = "llama") -> RewardModel:
    config = tiny_model(architecture=architecture).config
    config.num_labels = 1
    torch.manual_seed(0)
    return RewardModel(stirred(AutoModelForSequenceClassification.from_config(config)), tiny_tokenizer())


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "qwen3"])
def test_scores_are_those_of_transformers_own_pooling_for_single_rows(architecture: str):
    reward = scorer(architecture)
    plain = SEQUENCES[:3]  # no pad ids inside: transformers' pooling by pad id is right on these
    want = [reward.model(torch.tensor([row])).logits[0, 0] for row in plain]
    torch.testing.assert_close(reward.score(plain, LENGTHS[:3]), torch.stack(want), atol=1e-6, rtol=1e-5)
    ids, mask = right_padded(plain, pad_id=0, device=CPU)
    batched = reward.model(input_ids=ids, attention_mask=mask.long()).logits[:, 0]
    torch.testing.assert_close(reward.score(plain, LENGTHS[:3]), batched, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_the_mask_and_not_the_pad_id_says_where_a_row_ends():
    reward = scorer()
    last = SEQUENCES[3]
    hidden = reward.model.model(torch.tensor([last])).last_hidden_state
    want = reward.model.score(hidden[0, -1])[0]
    torch.testing.assert_close(reward.score(SEQUENCES, LENGTHS)[3], want, atol=1e-6, rtol=1e-5)
    reward.model.config.pad_token_id = 2  # even where the settings say eos pads
    torch.testing.assert_close(reward.score(SEQUENCES, LENGTHS)[3], want, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_scores_do_not_depend_on_batch_order_or_padding():
    reward = scorer()
    want = torch.cat([reward.score([row], [1]) for row in SEQUENCES])
    for size in (1, 2, 3, 64):
        torch.testing.assert_close(
            reward.score(SEQUENCES, LENGTHS, batch_size=size), want, atol=1e-6, rtol=1e-5
        )
    torch.testing.assert_close(reward.score(SEQUENCES[::-1], LENGTHS), want.flip(0), atol=1e-6, rtol=1e-5)
    ids, mask = right_padded(SEQUENCES, pad_id=200, device=CPU)
    torch.testing.assert_close(pooled_scores(reward.model, ids, mask), want, atol=1e-6, rtol=1e-5)
    assert reward.score([], []).shape == (0,)


def test_padding_by_hand():
    rows = [[7], [8, 9]]
    left, left_mask = left_padded(rows, pad_id=0, device=CPU)
    right, right_mask = right_padded(rows, pad_id=0, device=CPU)
    assert left.tolist() == [[0, 7], [8, 9]] and left_mask.tolist() == [[False, True], [True, True]]
    assert right.tolist() == [[7, 0], [8, 9]] and right_mask.tolist() == [[True, False], [True, True]]


def test_the_scale_is_stored_and_used(tmp_path: Path):
    reward = scorer()
    write_stats(tmp_path, RewardStats(0.5, 4.0, 3))
    scaled = RewardModel(reward.model, reward.tokenizer, stats=read_stats(tmp_path / "reward_stats.json"))
    assert (scaled.mean, scaled.std) == (0.5, 4.0)
    torch.testing.assert_close(
        scaled.normalised(SEQUENCES, LENGTHS), (reward.score(SEQUENCES, LENGTHS) - 0.5) / 4
    )
    with pytest.raises(ModelError, match=r"no reward_stats\.json"):
        reward.normalised(SEQUENCES, LENGTHS)
    with pytest.raises(ModelError, match="that is no scale"):
        write_stats(tmp_path, RewardStats(0.5, 0.0, 3))


@pytest.mark.parametrize(
    "text",
    [
        '{"mean": 1}',
        "[]",
        "no json",
        '{"mean": 1, "std": 1, "rows": 1, "scoring": null}',
        '{"mean": 1, "std": 1, "rows": 1, "scoring": {"x": 1}}',
    ],
)
def test_a_damaged_scale_is_told(tmp_path: Path, text: str):
    (tmp_path / "reward_stats.json").write_text(text)
    with pytest.raises(ModelError, match="run the reward stage again"):
        read_stats(tmp_path / "reward_stats.json")


def test_the_scale_says_how_the_model_scores_and_older_ones_mean_a_head(tmp_path: Path):
    stored = RewardStats(-9.0, 2.0, 8, Scoring("likelihood", 0.25))
    write_stats(tmp_path, stored)
    assert read_stats(tmp_path / "reward_stats.json") == stored
    (tmp_path / "reward_stats.json").write_text('{"mean": 0.5, "std": 4.0, "rows": 3}')
    assert read_stats(tmp_path / "reward_stats.json") == RewardStats(0.5, 4.0, 3, Scoring("head", 1.0))


def test_the_value_head_starts_at_zero_and_learns():
    head, hidden = ValueHead(8), torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    values = head(hidden)
    assert values.shape == (2, 3) and (values == 0).all()
    (values - 1).square().mean().backward()
    assert head.linear.weight.grad.abs().max() > 0 and head.linear.bias.grad.abs().max() > 0
