"""The page holds every fact, escapes every text, and loads nothing from anywhere."""

from __future__ import annotations

import html
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from aligner.errors import RunError
from aligner.run.numbers import duration, number
from aligner.run.plots import draw_svg, plots_of
from aligner.run.report import build_report
from aligner.run.report_tables import result_tables, start_and_end
from tests.run.fake import NASTY, quickstart


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quickstart(tmp_path_factory.mktemp("runs") / "quickstart")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    path = build_report(folder)
    assert path == folder / "report.html"
    assert (folder / "base/plots/loss.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / "plots").exists()
    return path.read_text(encoding="utf-8")


class Table(HTMLParser):
    """Text of all table rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.rows[-1][-1] += data


def rows_of(page: str) -> list[list[str]]:
    table = Table()
    table.feed(page)
    return [[" ".join(cell.split()) for cell in row] for row in table.rows]


def test_generated_text_is_text(page: str) -> None:
    assert html.escape(NASTY, quote=False).replace('"', "&#34;") in page
    assert (
        "<script" not in page
        and "<b>bold</b>" not in page
        and "49" not in re.findall(r"bold.{0,40}", page)[0]
    )


def test_every_section_is_there_in_the_order_of_the_question(page: str) -> None:
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert titles == [
        "Did it work?", "What training moved", "What was trained on what", "Curves",
        "The same prompts, side by side", "Stage by stage", "Machine and versions", "Glossary",
    ]  # fmt: skip


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page.replace("http://www.w3.org/1999/xlink", ""))
    assert "@import" not in page and "url(http" not in page


def test_results_stand_side_by_side_a_column_a_model(page: str) -> None:
    rows = rows_of(page)
    assert ["", "base", "sft", "ppo"] in rows
    assert ["items", "3.0 %", "34.0 %", "65.0 %"] in rows
    assert ["gold reward higher is better", "–", "0.410", "0.510"] in rows
    assert ["gold gain higher is better", "–", "–", "0.110 (0.070 to 0.150)"] in rows
    assert ["", "reward"] in rows and ["accuracy higher is better", "90.0 % (88.0 % to 92.0 %)"] in rows
    assert ["items.sorting", "0.0 %", "10.0 %", "20.0 %"] in rows
    folded = page.index("Everything else that was measured")
    assert (
        page.index(">items<")
        < page.index("KL in nats per response")
        < folded
        < page.index("finished <small>")
    )
    assert folded < page.index("Family by family") < page.index("items.sorting")
    assert len([row for row in rows if row[0] == "items.sorting"]) == 1


def test_stages_stand_in_the_pipelines_order_with_parents_rows_steps(page: str) -> None:
    rows = [row for row in rows_of(page) if row[-1:] == ["finished"]]
    assert [row[0] for row in rows] == ["base", "sft", "reward", "ppo", "evaluate"]
    assert rows[1][1:5] == ["sft", "base: runs/quickstart/base/model#3fa91c02d7be", "6 000", "370"]


def test_what_training_moved_says_which_way(page: str) -> None:
    rows = rows_of(page)
    assert ["base", "held-out bits per byte", "2.105", "0.914", "better"] in rows
    assert ["", "preference accuracy, held-out pairs", "74.4 %", "90.2 %", "better"] in rows


def test_every_curve_is_drawn_and_named(page: str) -> None:
    text = re.sub(r"<[^>]+>", "|", page)
    for title in (
        "Held-out bits per byte",
        "Preference accuracy",
        "proxy (learned)",
        "gold (true)",
        "KL to the reference",
    ):
        assert f"|{title}|" in text
    assert page.count("<svg") == 12


def test_a_single_stage_has_a_page_too(folder: Path) -> None:
    text = build_report(folder / "reward").read_text()
    assert "Did it work?" not in text and "|Preference accuracy|" in re.sub(r"<[^>]+>", "|", text)
    assert (folder / "reward/plots/accuracy.png").exists() and not (folder / "reward/reward").exists()


def test_stages_to_come_are_counted(tmp_path: Path) -> None:
    folder = quickstart(tmp_path / "quickstart")
    assert "5 stages, finished" in build_report(folder).read_text()
    for name in ("ppo", "evaluate"):
        shutil.rmtree(folder / name)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"finished"', '"running"'))
    assert "5 stages, 3 finished (running)" in build_report(folder).read_text()


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(RunError, match="no run here to report on"):
            build_report(folder)


def test_a_picture_takes_the_pages_ink_and_repeats_itself() -> None:
    rows = [{"step": step, "seconds": 0.0, "train/loss_nats": 1.0 / (step + 1)} for step in range(5)]
    (plot,) = plots_of(rows)
    svg = draw_svg(plot)
    assert svg == draw_svg(plot) and svg.startswith("<svg") and "currentColor" in svg and "#010203" not in svg
    assert plots_of(rows[:1]) == []


def test_numbers_as_people_read_them() -> None:
    assert [number(0.4567, "x_share"), number(914304.0), number(0.00123), number(-2.5)] == [
        "45.7 %", "914\u202f304", "0.0012", "-2.500",
    ]  # fmt: skip
    assert [number(-6e-7), number(-1e-9, "x_share"), number(12345.6)] == ["0", "0.0 %", "12\u202f346"]
    assert [duration(s) for s in (7.4, 185, 7800)] == ["7 s", "3 min 05 s", "2 h 10 min"]


def test_a_metric_of_all_rows_comes_first_and_that_of_suites_where_there_is_no_other() -> None:
    keys = [
        "a/gold_reward",
        "a/gold_reward[items]",
        "a/exact_match_share[items]",
        "a/exact_match_share[items.add]",
    ]
    results = dict.fromkeys([*keys, "a/finished_share"], 0.5)

    def named(part: str) -> list[tuple[str, str]]:
        return [(table.title, row.name) for table in result_tables(results, part) for row in table.rows]  # type: ignore[arg-type]

    assert named("first") == [("exact match", "items"), ("gold reward", "all")]
    assert named("rest") == [("gold reward", "items"), ("finished", "all")]
    assert named("families") == [("exact match", "items.add")]


def test_what_is_known_of_the_start_stands_beside_the_end() -> None:
    results = {
        "rloo/holdout_gold_reward": 0.9,
        "rloo/holdout_gold_reward[start]": 0.5,
        "rloo/best_step": 40.0,
    }
    (table,), left = start_and_end(results)
    assert table.title == "true (gold) reward, held-out prompts" and table.columns == ["start", "end"]
    assert [cell.text for cell in table.rows[0].cells] == ["0.500", "0.900"] and left == {
        "rloo/best_step": 40.0
    }


def test_steps_are_whole_numbers_on_the_axis() -> None:
    rows = [{"step": step, "seconds": 0.0, "train/loss_nats": 1.0} for step in (1, 2)]
    ticks = re.findall(r"<text[^>]*>([^<]*)</text>", draw_svg(plots_of(rows)[0]))
    assert "1" in ticks and "2" in ticks and not {"1.2", "1.25", "1.4", "1.5"} & set(ticks)


def test_the_best_of_a_row_is_the_lowest_where_lower_is_better() -> None:
    results = {
        "a/bits_per_byte": 1.0,
        "b/bits_per_byte": 2.0,
        "a/response_tokens": 3.0,
        "b/response_tokens": 4.0,
    }
    tokens, bits = result_tables(results, "first")
    assert [cell.best for cell in bits.rows[0].cells] == [True, False]
    assert not any(cell.best for cell in tokens.rows[0].cells)


def test_what_the_whole_training_reads_is_told_with_templates_and_shots(page: str) -> None:
    (planned,) = [row for row in rows_of(page) if row and row[0].startswith("data/world/tasks/*.yaml")]
    assert planned[0] == (
        "data/world/tasks/*.yamladd: plain 4 000, story 2 000sort: plain 6 000"
        "solved rows shown: 0 before 9 000 rows, 2 before 3 000 rows"
    )
    assert planned[1:] == ["12 000", "480 000", "75.0 %", "12.5 %", "1.50"]


def test_what_stays_in_spite_of_something_and_how_far_annotators_agree_is_told(page: str) -> None:
    cells = {cell for row in rows_of(page) for cell in row if "exact duplicate" in cell}
    dropped, kept, changed, agreement = next(iter(cells)).split("; ")
    assert len(cells) == 1 and dropped == "9 exact duplicate, 3 too short"
    assert (kept, changed) == ("used all the same: 4 repeated_pair", "cleaning changed: 5 masked_email")
    assert agreement.startswith("annotators' agreement (alpha): help 0.85, tone ")
