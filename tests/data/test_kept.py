"""Rows that are kept: the same as rows that are made, and made again wherever anything has changed."""

from __future__ import annotations

import os
from dataclasses import fields
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import pytest
from tokenizers import AddedToken

from aligner.data import kept
from aligner.data.build import build_conversations
from aligner.data.kept import kept_conversations, rows_fingerprint
from aligner.data.mix import Mix
from aligner.data.report import DataReport
from aligner.data.tokens import TokenRow
from aligner.recipe.data import DataSpec
from tests.data.tasks import nli_rows, write_task
from tests.stages.tools import write_jsonl
from tests.tiny import tiny_tokenizer


@pytest.fixture(autouse=True)
def _few_rows_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "FEWEST_ROWS", 1)


def chats(path: Path, count: int = 30) -> Path:
    rows = [
        {"messages": [
            {"role": "user", "content": f"ask {n} {'word ' * (n % 9)}"},
            {"role": "assistant", "content": f"say {n}" if n != 3 else "<|eos|>"},
        ]}
        for n in range(count)
    ]  # fmt: skip
    write_jsonl(path, rows)
    return path


def specs(folder: Path) -> dict[str, DataSpec]:
    one, two = str(chats(folder / "one.jsonl")), str(chats(folder / "two.jsonl", 12))
    task = write_task(folder / "tasks", rows=nli_rows(8))
    held = {"rows": 4}
    some = folder / "some.jsonl"
    some.write_text("".join(Path(two).read_text().splitlines(keepends=True)[:3]))
    given: dict[str, dict[str, object]] = {
        "plain": {"train": [{"path": one}], "holdout": held, "max_length": 24, "cut_answers": 1},
        "mixture": {
            "train": [{"path": one, "share": 0.7}, {"path": two}],
            "mixture": {"by": "temperature", "temperature": 2},
            "decontaminate": {"against": [{"path": str(some)}]},
        },
        "tasks": {
            "train": [{"path": str(task), "format": "tasks", "shots": [0, 1]}, {"path": one, "weight": 2}]
        },
    }
    return {name: DataSpec.model_validate(spec) for name, spec in given.items()}


@pytest.mark.parametrize("name", ["plain", "mixture", "tasks"])
def test_rows_that_are_read_again_are_the_rows_that_were_made(name: str, tmp_path: Path) -> None:
    spec, tokenizer = specs(tmp_path)[name], tiny_tokenizer()
    made = build_conversations(spec, tokenizer, seed=1, epochs=lambda rows: 3)
    first = kept_conversations(tmp_path / "kept", spec, tokenizer, seed=1, epochs=lambda rows: 3)
    (file,) = (tmp_path / "kept").iterdir()
    written = file.stat().st_ino
    again = kept_conversations(tmp_path / "kept", spec, tokenizer, seed=1, epochs=lambda rows: 3)
    assert file.stat().st_ino == written
    for data in (first, again):
        assert (data.train, data.holdout, data.mix) == (made.train, made.holdout, made.mix)
        assert data.report.to_json() == made.report.to_json()
        assert [data.mix.epoch(n) for n in range(4)] == [made.mix.epoch(n) for n in range(4)]


def test_recipes_of_unequal_epochs_keep_their_rows_of_tasks_beside_each_other(tmp_path: Path) -> None:
    spec, tokenizer = specs(tmp_path)["tasks"], tiny_tokenizer()
    written: dict[Path, int] = {}
    for count in (1, 2, 1, 2):
        epochs = partial(min, count)
        data = kept_conversations(tmp_path / "kept", spec, tokenizer, seed=1, epochs=epochs)
        made = build_conversations(spec, tokenizer, seed=1, epochs=epochs)
        assert (data.train, data.mix) == (made.train, made.mix)
        files = {path: path.stat().st_ino for path in (tmp_path / "kept").iterdir()}
        assert files.items() >= written.items()  # none is written again
        written = files
    assert len(written) == 2


def test_the_fingerprint_changes_with_anything_that_changes_a_row(tmp_path: Path) -> None:
    spec, tokenizer = specs(tmp_path)["mixture"], tiny_tokenizer()
    seen = [rows_fingerprint(spec, tokenizer, seed=1)]
    assert rows_fingerprint(spec, tiny_tokenizer(), seed=1) == seen[0]

    def changed() -> None:
        seen.append(rows_fingerprint(spec, tokenizer, seed=1))

    path = tmp_path / "one.jsonl"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # one bit, with size and time as they were
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed()
    tokenizer.chat_template += "{# #}"
    changed()
    tokenizer.add_tokens([AddedToken("word")])
    changed()
    spec = spec.model_copy(update={"max_length": 99})
    changed()
    seen.append(rows_fingerprint(spec, tokenizer, seed=2))
    assert None not in seen and len(set(seen)) == 6


@pytest.mark.parametrize("library", ["tokenizers", "trafilatura", "lxml", "justext", "charset-normalizer"])
def test_the_fingerprint_changes_with_the_libraries_that_decide_a_text(
    tmp_path, monkeypatch, library
) -> None:
    """trafilatura takes a page's text by the last three: bytes decoded, HTML parsed, paragraphs judged."""
    spec, tokenizer = specs(tmp_path)["plain"], tiny_tokenizer()
    before = rows_fingerprint(spec, tokenizer, seed=0)
    real = kept.version
    monkeypatch.setattr(kept, "version", lambda name: "0" if name == library else real(name))
    assert rows_fingerprint(spec, tokenizer, seed=0) != before


def test_the_rows_of_a_broken_file_are_made_again(tmp_path: Path) -> None:
    spec, tokenizer = specs(tmp_path)["plain"], tiny_tokenizer()
    made = kept_conversations(tmp_path / "kept", spec, tokenizer, seed=0)
    (file,) = (tmp_path / "kept").iterdir()
    whole = file.read_bytes()
    broken = [whole[:-1], b"", b"x" * 99, whole[: len(whole) // 2]]
    broken += [
        whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in range(3, len(whole), len(whole) // 40)
    ]
    for content in broken:
        file.write_bytes(content)
        again = kept_conversations(tmp_path / "kept", spec, tokenizer, seed=0)
        assert (again.train, again.mix, again.report.to_json()) == (
            made.train,
            made.mix,
            made.report.to_json(),
        )
        assert file.read_bytes() == whole
        assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_file_that_changes_while_it_is_read_leaves_nothing(tmp_path: Path) -> None:
    spec, tokenizer = specs(tmp_path)["tasks"], tiny_tokenizer()

    def epochs(rows: int) -> int:
        chats(tmp_path / "one.jsonl", 31)
        return 1

    kept_conversations(tmp_path / "kept", spec, tokenizer, seed=0, epochs=epochs)
    assert not (tmp_path / "kept").exists()


def test_the_files_that_were_used_last_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_FILES", 2)
    spec, tokenizer = specs(tmp_path)["plain"], tiny_tokenizer()
    files = {
        seed: tmp_path / "kept" / f"{rows_fingerprint(spec, tokenizer, seed=seed)}.rows" for seed in range(3)
    }
    for seed in (0, 1, 0, 2):  # 0 is read once more before 2 is written
        kept_conversations(tmp_path / "kept", spec, tokenizer, seed=seed)
        for age, path in enumerate(
            sorted((tmp_path / "kept").iterdir(), key=lambda path: -path.stat().st_mtime_ns)
        ):
            os.utime(path, (1000 - age, 1000 - age))
    assert set((tmp_path / "kept").iterdir()) == {files[0], files[2]}


def test_what_somebody_else_put_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_FILES", 1)
    spec, tokenizer = specs(tmp_path)["plain"], tiny_tokenizer()
    folder = tmp_path / "kept"
    (folder / "old").mkdir(parents=True)
    theirs = [folder / "old", folder / "mine.jsonl", folder / "model.safetensors"]
    for path in theirs[1:]:
        path.write_text("mine", encoding="utf-8")
    died = folder / f".tmp-0123abcd-{'0' * 16}.rows"
    died.touch()
    for path in (*theirs, died):
        os.utime(path, (1, 1))
    kept_conversations(folder, spec, tokenizer, seed=0)
    ours = folder / f"{rows_fingerprint(spec, tokenizer, seed=0)}.rows"
    assert set(folder.iterdir()) == {*theirs, ours}


def test_a_template_that_writes_the_day_has_other_rows_tomorrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tomorrow(date):
        @classmethod
        def today(cls) -> date:
            return date.today() + timedelta(days=1)

    spec, tokenizer = specs(tmp_path)["plain"], tiny_tokenizer()
    for template, stays in (
        (tokenizer.chat_template, True),
        ("{{ strftime_now('%d') }}" + tokenizer.chat_template, False),
    ):
        tokenizer.chat_template = template
        now = rows_fingerprint(spec, tokenizer, seed=0)
        with monkeypatch.context() as patch:
            patch.setattr(kept, "date", Tomorrow)
            assert (rows_fingerprint(spec, tokenizer, seed=0) == now) is stays


def test_few_rows_and_none_where_it_is_switched_off_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, tokenizer = specs(tmp_path)["plain"], tiny_tokenizer()
    kept_conversations(None, spec, tokenizer, seed=0)
    monkeypatch.setattr(kept, "FEWEST_ROWS", 10_000)
    kept_conversations(tmp_path / "kept", spec, tokenizer, seed=0)
    assert not (tmp_path / "kept").exists()


def test_a_folder_that_cannot_be_written_costs_nothing_but_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec, tokenizer = specs(tmp_path)["plain"], tiny_tokenizer()
    (tmp_path / "kept").write_text("a file")
    assert kept_conversations(tmp_path / "kept", spec, tokenizer, seed=0).train
    assert "not kept" in caplog.text


def test_nothing_of_a_row_is_left_out(tmp_path: Path) -> None:
    """A field that rows are given one day must be stored, too: the file would hold rows without it."""
    names = [[field.name for field in fields(kind)] for kind in (TokenRow, Mix, DataReport)]
    assert names == [
        [
            "input_ids",
            "supervised",
            "family",
            "prompt_cut",
            "answer_cut",
            "rewritten",
            "template",
            "shots",
        ],
        ["sources", "numbers", "costs", "draws", "rendered", "renderings"],
        ["train", "holdout", "curriculum", "words", "against"],
    ]
