"""Plans and tables against counts by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from aligner.data.build import build_conversations
from aligner.data.costs import Costs, RowCost
from aligner.data.mix import Mix
from aligner.data.plan import histogram, plan_sources, plan_table, report_table
from aligner.data.report import DataReport, SourceReport
from aligner.recipe.data import DataSpec, HoldoutSpec, SourceSpec
from aligner.recipe.mixture import MixtureSpec
from aligner.recipe.plan import PlanTable
from aligner.stages.order import row_order
from tests.tiny import tiny_tokenizer


def report(path: str) -> SourceReport:
    return SourceReport(path, "messages", 9, 7, {"cap": 2}, 7, 0, 0, 0, 0, "")


def test_a_plan_counts_what_is_read_of_each_source():
    # Two rows of source 0 (the second copied), one of source 1.
    costs = Costs()
    for numbers in ((10, 4), (20, 5), (20, 5), (30, 30)):
        costs.append(RowCost(*numbers))
    mix = Mix([0, 0, 0, 1], [0, 1, 1, 0], costs)
    first, second, third = plan_sources(
        DataReport([report("a"), report("b"), report("c")]), mix, [0, 1, 2, 3, 3, 0, 1]
    )
    assert (first.rows, first.tokens, first.supervised_tokens) == (5, 80, 23)
    assert (second.rows, second.tokens, second.supervised_tokens) == (2, 60, 60)
    assert (first.share, second.share, third.share) == (80 / 140, 60 / 140, 0)
    assert (first.epochs, first.most) == (2.5, 3) and (second.epochs, second.most) == (2, 2)
    assert (third.rows, third.epochs, third.most) == (0, 0, 0)
    lines = plan_table([first, second]).lines()
    assert lines[0].split()[:4] == ["trained", "on", "rows", "tokens"]
    assert lines[1].split() == ["a", "5", "80", "57.1%", "29%", "2.50", "3x"]
    assert len({line.rindex("x") for line in lines[1:]}) == 1  # columns stand on the right


def test_histograms_by_hand():
    assert histogram([1, 1, 1, 1, 8, 8], 8) == "█······▄"
    assert histogram([5] * 3, 8) == "····█···"
    assert histogram([], 8) == "········"
    assert histogram([1, *range(1, 9)], 8) == "█▄▄▄▄▄▄▄"
    assert histogram([1] + [80] * 1000, 80)[0] == "▁"  # few are not none


def test_tables_are_plain_lines():
    table = PlanTable(("name", "n"), (("a", "10"), ("longer", "5"), ("c", "")))
    assert table.lines() == ["name     n", "a       10", "longer   5", "c"]


def test_a_mixture_is_built_read_and_told_exactly(tmp_path: Path):
    def write(name: str, count: int, word: str) -> str:
        rows = [{"instruction": f"Say {word} {i}.", "output": f"{word} {i}"} for i in range(count)]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    paths = [write("a.jsonl", 30, "cat"), write("b.jsonl", 90, "dog")]
    (tmp_path / "long.txt").write_text("The cat of Mia is red and lives here. " * 40)
    train = [
        SourceSpec(path=paths),
        SourceSpec(path=str(tmp_path / "long.txt"), format="text", share=0.1),
    ]
    spec = DataSpec(
        train=train,
        mixture=MixtureSpec(by="temperature", temperature=2, rows=50),
        holdout=HoldoutSpec(rows=4),
        max_length=64,
    )
    built = build_conversations(spec, tiny_tokenizer(), seed=1)
    chats, documents = built.report.train
    assert (chats.rows_per_epoch, documents.rows_per_epoch) == (45, 5)
    assert built.mix.rows_per_epoch == 50 and chats.rows_used + documents.rows_used == 117
    assert len(built.train) == chats.rows_used + built.mix.sources.count(
        1
    )  # each row once, documents in pieces
    order = row_order(rows=50, rows_per_step=10, steps=20, seed=1, epoch_rows=built.mix.epoch)
    plan, told = plan_sources(built.report, built.mix, order)
    times = Counter(order)
    assert plan.rows == sum(n for i, n in times.items() if built.mix.sources[i] == 0) == 4 * 45
    assert told.rows == 4 * 5 and told.supervised_tokens == told.tokens - told.rows
    assert plan.tokens == sum(
        n * len(built.train[i].input_ids) for i, n in times.items() if built.mix.sources[i] == 0
    )
    for start in range(0, 200, 50):  # every epoch has exactly its rows
        assert Counter(built.mix.sources[i] for i in order[start : start + 50]) == {0: 45, 1: 5}
    assert build_conversations(spec, tiny_tokenizer(), seed=1) == built
    lines = report_table(built.report, built.mix).lines()
    assert "held_out" in lines[1] and lines[1].split()[0] == "train" and lines[-1].split()[0] == "holdout"


def test_rates_are_of_files_or_of_sources_and_shares_of_rows_or_tokens(tmp_path: Path):
    def write(name: str, count: int, answer: str) -> str:
        rows = [{"instruction": f"Say {name} {i}.", "output": answer} for i in range(count)]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    both = SourceSpec(path=[write("a", 10, "ok"), write("b", 90, "ok")], format="alpaca")
    long = SourceSpec(path=write("c", 50, "word " * 30), format="alpaca")

    def read(mixture: MixtureSpec, *train: SourceSpec) -> tuple[Counter[int], Counter[str]]:
        spec = DataSpec(train=list(train), mixture=mixture, max_length=200)
        built = build_conversations(spec, tiny_tokenizer(), seed=0)
        epoch = built.mix.epoch(0)
        tokens: Counter[int] = Counter()
        for i in epoch:
            tokens[built.mix.sources[i]] += len(built.train[i].input_ids)
        decoded = [tiny_tokenizer().decode(built.train[i].input_ids) for i in epoch]
        return tokens, Counter(text.split("Say ")[1][0] for text in decoded)

    equal = {"by": "temperature", "temperature": 1000.0, "rows": 100}
    assert read(MixtureSpec(**equal), both)[1] == {"a": 50, "b": 50}
    assert read(MixtureSpec(**equal, each="source"), both)[1] == {"a": 10, "b": 90}
    shares = [both.model_copy(update={"share": 0.5}), long.model_copy(update={"share": 0.5})]
    assert read(MixtureSpec(by="share", rows=200), *shares)[1]["c"] == 100
    tokens, _ = read(MixtureSpec(by="share", share_of="tokens", rows=1000), *shares)
    assert abs(tokens[0] / sum(tokens.values()) - 0.5) < 0.005


def test_draws_do_not_depend_on_other_sources_or_folders(tmp_path: Path):
    def drawn(folder: str, *others: str) -> list[list[int]]:
        (tmp_path / folder).mkdir()
        sources = []
        for name in ("a", *others):
            rows = [{"instruction": f"{name} {i}", "output": "ok"} for i in range(20)]
            path = tmp_path / folder / f"{name}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            sources.append(SourceSpec(path=str(path), epochs=0.4))
        spec = DataSpec(train=sources[::-1], mixture=MixtureSpec(by="epochs"))
        built = build_conversations(spec, tiny_tokenizer(), seed=0)
        mine = len(others)
        return [
            sorted(built.mix.numbers[i] for i in built.mix.epoch(epoch) if built.mix.sources[i] == mine)
            for epoch in range(3)
        ]

    alone = drawn("one")
    assert alone == drawn("two", "b", "c")
    assert [len(epoch) for epoch in alone] == [8, 8, 8] and len({*alone[0], *alone[1]}) == 16
