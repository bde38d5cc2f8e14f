"""Contradictions, repeats and shares of a prompt's weight, over all the pairs of a mixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aligner.data.build import Pairs, build_pairs
from aligner.data.preferences import settle_pairs, share_weights
from aligner.data.readers import SourceRows
from aligner.data.rows import Origin, Pair
from aligner.recipe.data import HoldoutSpec, PairDataSpec, PairRules, SourceSpec
from tests.data.chats import chat
from tests.data.test_readers import write
from tests.tiny import tiny_tokenizer


def source(*verdicts: str, prompt: str = "p") -> SourceRows:
    """A pair for each "chosen>rejected"."""
    rows = [Pair(Origin("a", i), chat(prompt), *text.split(">")) for i, text in enumerate(verdicts, start=1)]
    return SourceRows("a", "pairs", [Path("a")], list(rows))


def verdicts(given: SourceRows) -> list[str]:
    return [f"{row.chosen}>{row.rejected}" for row in given.rows if isinstance(row, Pair)]


@pytest.mark.parametrize(
    ("rules", "stay", "dropped", "noted"),
    [
        (
            {},
            ["a>b", "a>b", "b>c"],
            {"outvoted_pair": 1, "conflicting_pair": 2},
            {"conflicting_pair": 2, "repeated_pair": 1},
        ),
        (
            {"repeats": "once"},
            ["a>b", "b>c"],
            {"outvoted_pair": 1, "conflicting_pair": 2, "repeated_pair": 1},
            {"conflicting_pair": 1},
        ),
        ({"conflicts": "drop"}, ["b>c"], {"conflicting_pair": 5}, {}),
        (
            {"conflicts": "keep"},
            ["a>b", "b>a", "c>d", "b>c", "a>b", "d>c"],
            {},
            {"conflicting_pair": 5, "repeated_pair": 1},
        ),
    ],
    ids=["majority", "once", "drop", "keep"],
)
def test_conflicts_and_repeats_over_all_sources_go_by_the_rule(rules, stay, dropped, noted):
    # a over b twice, b over a once: 2 to 1; c and d: 1 to 1; b over c: no conflict
    one, other = source("a>b", "b>a", "c>d", "b>c"), source("a>b", "d>c")
    settle_pairs([one, other], PairRules(**rules))
    assert sorted(verdicts(one) + verdicts(other)) == sorted(stay)
    assert one.dropped + other.dropped == dropped and one.noted + other.noted == noted
    assert one.rows_read + other.rows_read == 6


def test_the_same_answers_to_another_prompt_are_no_conflict():
    one, other = source("a>b"), source("b>a", "B>A", prompt="q")
    settle_pairs([one, other], PairRules())
    assert verdicts(one) + verdicts(other) == ["a>b", "b>a", "B>A"] and not one.noted and not other.noted


def test_the_pairs_of_a_prompt_share_one_weight_over_all_sources():
    ranked, single, again = source("a>b", "a>c", "b>c"), source("a>b", prompt="q"), source("d>e", prompt=" P")
    share_weights([ranked, single, again])
    assert [row.weight for row in ranked.rows] == [1 / 4] * 3
    assert [row.weight for row in single.rows] == [1.0] and [row.weight for row in again.rows] == [1 / 4]


def built(tmp_path: Path, rules: dict[str, Any], **more: Any) -> Pairs:
    ranking = write(
        tmp_path / "r.jsonl",
        {"prompt": "Rank", "answers": ["a", "b", "c"]},
        {"prompt": "Two", "answers": ["x", "y"]},
    )
    pairs = write(
        tmp_path / "p.jsonl", *({"prompt": f"Say {i}", "chosen": "good", "rejected": "bad"} for i in range(5))
    )
    spec = PairDataSpec(
        train=[SourceSpec(path=str(ranking), weight=2.0), SourceSpec(path=str(pairs))],
        pairs=PairRules(**rules),
        **more,
    )
    return build_pairs(spec, tiny_tokenizer(), seed=0)


def test_weights_reach_the_rows_of_training_and_no_others(tmp_path):
    plain, shared = built(tmp_path, {}), built(tmp_path, {"weigh": "prompt"})
    assert {row.weight for row in plain.train} == {1.0}
    # a ranking of three: 3 pairs of 1/3, twice each, for the source counts double; the rest: one pair a prompt
    assert sorted(row.weight for row in shared.train) == pytest.approx([1 / 3] * 6 + [1.0] * 7)
    assert [row.chosen_ids for row in shared.train] == [row.chosen_ids for row in plain.train]
    assert shared.report == plain.report
    held = built(tmp_path, {"weigh": "prompt"}, holdout=HoldoutSpec(rows=2))
    assert {row.weight for row in held.holdout} == {1.0}


def test_the_report_counts_conflicts_in_training_and_in_the_holdout(tmp_path):
    rows = [{"prompt": f"Say {i}", "chosen": "good", "rejected": "bad"} for i in range(4)]
    against = {"prompt": "Say 0", "chosen": "bad", "rejected": "good"}
    train = write(tmp_path / "a.jsonl", *rows, rows[1])
    other = write(tmp_path / "b.jsonl", against)
    held = write(
        tmp_path / "h.jsonl", *({**row, "prompt": f"Held {row['prompt']}"} for row in (*rows, against))
    )
    spec = PairDataSpec(
        train=[SourceSpec(path=str(train)), SourceSpec(path=str(other))],
        holdout=HoldoutSpec(sources=[SourceSpec(path=str(held))]),
    )
    result = build_pairs(spec, tiny_tokenizer(), seed=0)
    first, second = result.report.train
    assert (first.dropped, first.noted, first.rows_used) == ({"conflicting_pair": 1}, {"repeated_pair": 1}, 4)
    assert (second.dropped, second.rows_read, second.rows_used) == ({"conflicting_pair": 1}, 1, 0)
    assert result.report.holdout[0].dropped == {"conflicting_pair": 2} and len(result.holdout) == 3
