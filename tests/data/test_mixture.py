from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from aligner.data.mixture import (
    cap_files,
    chance,
    draw_holdout,
    drop_withheld,
    keep_measured,
    random_order,
    weigh,
    withhold_families,
)
from aligner.data.readers import SourceRows
from aligner.data.rows import Conversation, Document, Origin, Pair, Prompt, Row
from aligner.errors import DataError
from tests.data.chats import chat


def documents(file: str, count: int, text: str = "text") -> list[Row]:
    return [Document(Origin(file, i), text=f"{text} {file} {i}") for i in range(1, count + 1)]


def source(*rows: Row) -> SourceRows:
    return SourceRows("p", "documents", [Path("p")], list(rows))


def lines(rows) -> list[int]:
    return [row.origin.line for row in rows]


def test_a_cap_holds_for_each_file_and_is_a_random_choice_by_seed():
    def capped(seed: int) -> SourceRows:
        given = source(*documents("a", 50), *documents("b", 5))
        cap_files(given, 10, seed=seed)
        return given

    one = capped(1)
    assert Counter(row.origin.path for row in one.rows) == {"a": 10, "b": 5}
    assert one.dropped == {"cap": 40} and one.rows_read == 55
    assert lines(one.rows) == lines(capped(1).rows) != lines(capped(2).rows)
    assert lines(one.rows[:10]) == sorted(lines(one.rows[:10])) != list(range(1, 11))


@pytest.mark.parametrize(("weight", "total"), [(1.0, 40), (2.0, 80), (0.5, 20), (2.25, 90), (0.01, 0)])
def test_weights_are_copies_per_epoch(weight, total):
    given = source(*documents("a", 40))
    copies = weigh(given, weight, seed=3)
    assert sum(copies) == total and len(copies) == len(given.rows) and given.rows_read == 40
    assert set(copies) <= {max(1, int(weight)), int(weight) + 1}
    assert given.dropped.total() == (40 - total if weight < 1 else 0)


def test_chance_is_the_same_in_every_process_and_place():
    row = Document(Origin("/some/where/a.txt", 3), text="x")
    assert chance(row, seed=0, purpose="cap") == chance(
        Document(Origin("a.txt", 3), text="x"), seed=0, purpose="cap"
    )
    assert chance(row, seed=0, purpose="cap") == 13373807552232735476  # b2sum -l 64 of "0|cap|a.txt|3|x"
    others = {chance(row, seed=s, purpose=p) for s in range(3) for p in ("cap", "weight")}
    assert len(others) == 6


def test_drawn_rows_are_never_trained_on_nor_their_equals():
    a = source(*documents("a", 30))
    equal = [Document(Origin("b", 100 + i), text=row.text.upper() + " ") for i, row in enumerate(a.rows)]
    b = source(*documents("b", 10), *equal)
    holdout = draw_holdout([a, b], 12, seed=0)
    held = {" ".join(row.text.lower().split()) for part in holdout for row in part.rows}
    trained = {" ".join(row.text.lower().split()) for part in (a, b) for row in part.rows}
    assert len(held) == 12 and not held & trained and len(held | trained) == 40
    assert sum(part.dropped["held_out"] for part in (a, b)) == 12 == sum(part.rows_read for part in holdout)
    assert a.rows_read == 30 and b.rows_read == 40


def test_pairs_are_held_out_by_prompt():
    rows = [Pair(Origin("r", i), chat(f"prompt {i // 6}"), f"good {i}", f"bad {i}") for i in range(60)]
    given = source(*rows)
    (holdout,) = draw_holdout([given], 10, seed=1)
    assert len(holdout.rows) == 10
    assert not {row.prompt for row in holdout.rows} & {row.prompt for row in given.rows}
    assert given.dropped == {"held_out": 10, "in_holdout": 2} and len(given.rows) == 48


def test_too_large_a_holdout_is_refused():
    for rows in (5, 6):
        with pytest.raises(DataError, match=f"{rows} rows cannot be held out of 5"):
            draw_holdout([source(*documents("a", 5))], rows, seed=0)


def test_rows_of_a_held_out_source_are_dropped_from_training():
    train, held = source(*documents("a", 9)), source(Document(Origin("h", 1), text="TEXT a  4"))
    drop_withheld([train], [held])
    assert lines(train.rows) == [1, 2, 3, 5, 6, 7, 8, 9] and train.dropped == {"in_holdout": 1}


def test_other_pairs_of_a_held_out_prompt_are_dropped_from_training():
    rows = [Pair(Origin("r", i), chat(f"prompt {i // 3}"), f"good {i}", f"bad {i}") for i in range(9)]
    train, held = source(*rows), source(Pair(Origin("h", 1), chat("Prompt  1"), "better", "worse"))
    drop_withheld([train], [held])
    assert lines(train.rows) == [0, 1, 2, 6, 7, 8] and train.dropped == {"in_holdout": 3}


def test_families_are_withheld_whole_by_what_rows_say_and_by_files():
    rows: list[Row] = [
        Conversation(Origin("d/mixed.jsonl", 1), chat("a", "b"), "reading"),
        Conversation(Origin("d/mixed.jsonl", 2), chat("c", "d"), "sums"),
        Conversation(Origin("d/reading.jsonl.gz", 3), chat("e", "f"), "other"),
        Prompt(Origin("d/asked.jsonl", 4), chat("g"), "reading"),
        Pair(Origin("d/asked.jsonl", 5), chat("h"), "x", "y", kind="reading"),
        Document(Origin("d/reading.txt", 6), text="i"),
        Document(Origin("d/reading more.txt", 7), text="j"),
    ]
    one, other = source(*rows[:4]), source(*rows[4:])
    held = withhold_families([one, other], ["reading"])
    assert [lines(part.rows) for part in held] == [[1, 3, 4], [5, 6]]
    assert (lines(one.rows), lines(other.rows)) == ([2], [7])
    assert one.dropped == {"held_out": 3} and one.rows_read == 4


def test_unknown_families_are_told_all_at_once_with_the_nearest():
    given = source(Conversation(Origin("d/x.jsonl", 1), chat("a", "b"), "reading"))
    with pytest.raises(
        DataError, match='(?s)no row is of family "readin".*did you mean "reading".*"sums"'
    ) as told:
        withhold_families([given], ["readin", "sums", "x"])
    assert len(told.value.problems) == 2 and "valid: reading, x" in str(told.value)


def test_some_held_out_rows_are_measured_and_the_others_counted():
    parts = [source(*documents("a", 30)), source(*documents("b", 10))]
    keep_measured(parts, 12, seed=0)
    assert sum(len(part.rows) for part in parts) == 12 and 0 < len(parts[1].rows) < 10
    assert [part.rows_read for part in parts] == [30, 10]
    assert sum(part.dropped["not_measured"] for part in parts) == 28
    whole = [source(*documents("a", 3))]
    keep_measured(whole, 0, seed=0)
    assert len(whole[0].rows) == 3 and not whole[0].dropped


def test_shuffling_gives_every_copy_in_an_order_of_the_seed():
    rows = documents("a", 20)
    order, again, other = (random_order([(row, 2) for row in rows], seed=seed).tolist() for seed in (0, 0, 1))
    assert Counter(order) == dict.fromkeys(range(20), 2)
    assert order == again != other
    assert order[:20] != sorted(order[:20])
