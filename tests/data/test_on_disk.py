"""Rows on disk: the same as in a list, in memory that does not grow with them."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aligner.data import mix, row_store, spool
from aligner.data.build import Conversations, Pairs, build_conversations, build_pairs
from aligner.data.costs import Costs, RowCost
from aligner.data.pair_rows import PairStore
from aligner.data.prompt_rows import PromptStore
from aligner.data.rows import Document, Origin, Prompt, Row, ToolCall, Turn
from aligner.data.spool import Spool
from aligner.data.token_rows import TokenStore, lengths_of
from aligner.data.tokens import PairRow, PromptRow, TokenRow
from aligner.recipe.data import DataSpec, PairDataSpec
from tests.stages.tools import write_jsonl
from tests.tiny import tiny_tokenizer

BYTES_A_ROW = 400  # of memory, for rows of 200 tokens and more, which take 27 bytes a token in lists


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "CHUNK_ROWS", 7)
    monkeypatch.setattr(row_store, "PENDING_NUMBERS", 20)


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 50])
def test_a_spool_is_a_list_that_lies_on_disk(count: int) -> None:
    rows: list[Row] = [Document(Origin("a.txt", i), f"text {i}") for i in range(count)]
    spooled = Spool(rows)
    assert spooled == rows and list(spooled) == rows and len(spooled) == count
    chooser = random.Random(count)
    for place in [chooser.randrange(count) for _ in range(20)] if count else []:
        assert spooled[place] == rows[place] and spooled[-1 - place] == rows[-1 - place]
    assert spooled[2:9] == rows[2:9] and spooled[::-1] == rows[::-1]
    with pytest.raises(IndexError):
        spooled[count]
    odd = spooled.picked(range(1, count, 2))
    assert odd == rows[1::2] and odd.picked(range(0, len(odd), 2)) == rows[1::4] and spooled == rows
    both = zip(spooled, reversed(spooled), strict=True)  # two readings at once
    assert list(both) == list(zip(rows, reversed(rows), strict=True))


def test_what_is_kept_in_memory_stays_the_same_object() -> None:
    rows: list[Row] = [Document(Origin("a.txt", i)) for i in range(2000)]
    assert all(a is b for a, b in zip(Spool(rows, on_disk=False), rows, strict=True))


@pytest.mark.usefixtures("_small_pieces")
def test_ready_rows_come_back_whole() -> None:
    chooser = random.Random(0)
    rows = [
        TokenRow(
            ids := [chooser.randrange(1 << 30) for _ in range(n % 9)],
            [chooser.random() < 0.5 for _ in ids],
            f"family {n % 3}", n % 2 == 0, n % 3 == 0, n % 5 == 0, f"template {n % 4}", n % 6,
        )
        for n in range(60)
    ]  # fmt: skip
    store = TokenStore()
    for row in rows:
        cost = RowCost(
            len(row.input_ids), sum(row.supervised), row.prompt_cut, row.answer_cut, row.rewritten, row.template, row.shots
        )  # fmt: skip
        store.append(row, cost)
    order = np.array([*chooser.sample(range(60), 40), 3, 3])
    picked = store.picked(order)
    wanted = [rows[place] for place in order]
    assert picked == wanted and list(picked) == wanted and picked[5:9] == wanted[5:9]
    assert lengths_of(picked) == lengths_of(wanted) == [len(row.input_ids) for row in wanted]
    assert picked != wanted[::-1] and picked != wanted[:-1]
    store.append(rows[0], store.costs[0])  # after it was mapped
    assert store.picked(np.array([60, 59])) == [rows[0], rows[59]]


def test_costs_are_what_was_given() -> None:
    given = [
        RowCost(n, n // 2, n % 2 == 0, n % 3 == 0, n % 5 == 0, f"t{n % 3}", n % 4) for n in range(30)
    ]  # fmt: skip
    costs = Costs()
    for cost in given:
        costs.append(cost)
    assert costs == given and costs[-1] == given[-1] and costs[3:5] == given[3:5]
    assert costs.picked(np.array([4, 4, 0])) == [given[4], given[4], given[0]]


def stored_pair(chooser: random.Random, n: int) -> PairRow:
    prompt = [chooser.randrange(1 << 31) for _ in range(n % 4)]
    chosen, rejected = ([*prompt, *(chooser.randrange(1 << 31) for _ in range(n % k))] for k in (5, 7))
    margin = None if n % 3 else n / 7 - 2
    return PairRow(
        chosen, rejected, margin, f"kind {n % 3}", len(prompt), n % 2 == 0, n % 5 == 0, 1 / (1 + n)
    )


@pytest.mark.usefixtures("_small_pieces")
def test_ready_pairs_come_back_whole() -> None:
    chooser = random.Random(0)
    pairs = [stored_pair(chooser, n) for n in range(60)]
    store = PairStore()
    for pair in pairs:
        store.append(pair, RowCost(prompt_cut=pair.prompt_cut, answer_cut=pair.answer_cut))
    order = np.array([*chooser.sample(range(60), 40), 3, 3])
    picked, wanted = store.picked(order), [pairs[place] for place in order]
    assert picked == wanted and list(picked) == wanted and picked[5:9] == wanted[5:9] and len(picked) == 42
    assert {type(pair.chosen_ids[0]) for pair in picked if pair.chosen_ids} == {int}


@pytest.mark.usefixtures("_small_pieces")
def test_ready_prompts_come_back_whole() -> None:
    golds: list[dict[str, object]] = [
        {}, {"kind": "count", "answers": [1, 1.0, True, None, "\u00df\ud83d"]}, {"day": date(2026, 1, 2)}, {"1": {1: "one"}}
    ]  # fmt: skip
    rows = []
    for n in range(60):
        calls = (ToolCall("add", '{"a": 1}'), ToolCall("stop", "{}"))[: n % 3]
        turns = (
            Turn("system", "", tools="[]"),
            Turn("assistant", f"\u2028 {n}", calls),
            Turn("user", "ask" * (n % 5)),
        )
        prompt = Prompt(Origin(f"{n % 2}.jsonl", n), turns[n % 3 :], f"family {n % 3}", golds[n % 4])
        rows.append(PromptRow([n, 1 << 30][: n % 3], prompt, n % 2 == 0))
    store = PromptStore()
    for row in rows:
        store.append(row, RowCost(prompt_cut=row.prompt_cut))
    order = np.array([*random.Random(0).sample(range(60), 40), 3, 3])
    wanted = [rows[place] for place in order]
    assert repr(list(store.picked(order))) == repr(wanted)  # 1 is not 1.0, nor True
    assert not store.whole  # two golds are in memory


CHANGED = {"deduplicate": True, "repair": True, "mask": ["email"]}


@pytest.mark.parametrize(
    ("spec", "build", "clean", "more"),
    [
        (DataSpec, build_conversations, {"deduplicate": True}, {}),
        (DataSpec, build_conversations, CHANGED, {}),
        (PairDataSpec, build_pairs, CHANGED, {"pairs": {"weigh": "prompt"}}),
    ],
    ids=["rows", "cleaned", "pairs"],
)
def test_memory_does_not_grow_with_the_rows(
    spec: type[DataSpec],
    build: Callable[..., Conversations | Pairs],
    clean: dict[str, Any],
    more: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reading, cleaning, a hold-out, templates and tokens; beside it, what the same rows take in lists."""
    monkeypatch.setattr(spool, "CHUNK_ROWS", 100)
    monkeypatch.setattr(mix, "BATCH_ROWS", 200)
    monkeypatch.setattr(row_store, "PENDING_NUMBERS", 1 << 14)
    tokenizer = tiny_tokenizer()

    def row(number: int) -> dict[str, str]:
        answer = f"{number} is a number, says a@b.org. " * 12
        if spec is DataSpec:
            return {"instruction": f"say {number}", "output": answer}
        return {"prompt": f"say {number}", "chosen": answer, "rejected": f"{number}"}

    def built(count: int) -> tuple[int, int]:
        path = write_jsonl(tmp_path / f"{count}.jsonl", list(map(row, range(count))))
        given = {"train": [{"path": str(path)}], "holdout": {"rows": 50}, "clean": clean, "max_length": 600}
        asked = spec.model_validate(given | more)
        tracemalloc.start()
        made = build(asked, tokenizer, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(made.train) == count - 50
        return peak, made.report.train[0].tokens

    built(200)
    (few, few_tokens), (many, many_tokens) = built(600), built(2400)
    assert many_tokens - few_tokens > 200 * 1800
    assert many - few < BYTES_A_ROW * 1800
