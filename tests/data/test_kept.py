"""Rows that are kept: the same as rows that are made, and made again wherever anything has changed."""

from __future__ import annotations

import os
from dataclasses import fields
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import AddedToken

from aligner.data import keeping, kept
from aligner.data.build import (
    Conversations,
    Pairs,
    build_conversations,
    build_pairs,
    build_training_prompts,
)
from aligner.data.kept import rows_fingerprint
from aligner.data.mix import Mix
from aligner.data.report import DataReport
from aligner.data.rows import Origin, Prompt, ToolCall, Turn
from aligner.data.tokens import PairRow, PromptRow, TokenRow
from aligner.recipe.data import DataSpec, PairDataSpec
from aligner.recipe.ppo import PromptsSpec
from tests.data.tasks import nli_rows, write_task
from tests.stages.tools import write_jsonl
from tests.tiny import tiny_tokenizer


@pytest.fixture(autouse=True)
def _few_rows_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "FEWEST_ROWS", 1)


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


def pair_spec(folder: Path) -> PairDataSpec:
    """Pairs with and without margins, three to a prompt, some too long, one said twice and one taken back."""
    rows = [
        {
            "prompt": f"ask {n // 3} {'word ' * (n % 9)}", "chosen": f"good {n} {'so ' * (n % 5)}", "rejected": f"bad {n}",
            "kind": f"kind {n % 2}", **({} if n % 4 else {"margin": n / 7}),
        }
        for n in range(30)
    ]  # fmt: skip
    rows += [rows[1], {**rows[2], "chosen": rows[2]["rejected"], "rejected": rows[2]["chosen"]}]
    rows.append({**rows[5], "chosen": "<|eos|>"})
    write_jsonl(folder / "pairs.jsonl", rows)
    given = {"train": [{"path": str(folder / "pairs.jsonl"), "weight": 1.5}], "holdout": {"rows": 4}}
    limits = {"max_length": 24, "cut_answers": 1, "pairs": {"weigh": "prompt"}}
    return PairDataSpec.model_validate(given | limits)


def prompt_spec(folder: Path) -> PromptsSpec:
    """Prompts with gold answers and families, of several turns, some too long, some held out."""
    rows: list[dict[str, object]] = [
        {"prompt": f"ask {n} {'wörd ' * (n % 9)}", "family": f"family {n % 2}", "gold": {"kind": "count", "answers": [n, 0.1, None]}}
        for n in range(30)
    ]  # fmt: skip
    rows[7] = {
        "prompt": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "ask \u2028?"}]
    }
    write_jsonl(folder / "prompts.jsonl", rows)
    write_jsonl(folder / "held.jsonl", rows[:3])
    names = {"train": "prompts.jsonl", "holdout": "held.jsonl"}
    given = {part: [{"path": str(folder / name)}] for part, name in names.items()}
    return PromptsSpec.model_validate(given | {"max_prompt_tokens": 16})


def built(kind: str, folder: Path, *, keep: Path | None = None) -> list[object]:
    """All that a build gives of a kind, as values to compare."""
    tokenizer = tiny_tokenizer()
    if kind == "prompts":
        prompts = build_training_prompts(prompt_spec(folder), tokenizer, seed=1, keep=keep)
        return [list(prompts.rows), prompts.report.to_json()]
    data: Conversations | Pairs
    if kind == "pairs":
        data = build_pairs(pair_spec(folder), tokenizer, seed=1, keep=keep)
    else:
        spec = specs(folder)[kind]
        data = build_conversations(spec, tokenizer, seed=1, epochs=lambda rows: 3, keep=keep)
    epochs = [list(data.mix.epoch(n)) for n in range(4)]
    return [list(data.train), list(data.holdout), data.report.to_json(), data.mix, epochs]


KINDS = ["plain", "mixture", "tasks", "pairs", "prompts"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_read_again_are_the_rows_that_were_made(kind: str, tmp_path: Path) -> None:
    made = built(kind, tmp_path)
    assert made[0]
    first = built(kind, tmp_path, keep=tmp_path / "kept")
    (file,) = (tmp_path / "kept").glob("*.rows")
    written = file.stat().st_ino
    again = built(kind, tmp_path, keep=tmp_path / "kept")
    assert file.stat().st_ino == written
    assert first == made and again == made
    assert repr(again[0]) == repr(made[0])  # 1 is not 1.0, nor True


def test_gold_that_a_file_cannot_hold_is_not_kept_and_not_lost(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["ask", "beg"], "gold": [{"day": date(2026, 1, 2)}, {"day": None}]})
    pq.write_table(table, tmp_path / "prompts.parquet")
    spec = PromptsSpec.model_validate({"train": [{"path": str(tmp_path / "prompts.parquet")}]})
    for _ in range(2):
        data = build_training_prompts(spec, tiny_tokenizer(), seed=0, keep=tmp_path / "kept")
        golds = {row.prompt.turns[0].content: row.prompt.gold for row in data.rows}
        assert golds == {"ask": {"day": date(2026, 1, 2)}, "beg": {"day": None}}
    assert not (tmp_path / "kept").exists()


def test_recipes_of_unequal_epochs_keep_their_rows_of_tasks_beside_each_other(tmp_path: Path) -> None:
    spec, tokenizer = specs(tmp_path)["tasks"], tiny_tokenizer()
    written: dict[Path, int] = {}
    for count in (1, 2, 1, 2):
        epochs = partial(min, count)
        data = build_conversations(spec, tokenizer, seed=1, keep=tmp_path / "kept", epochs=epochs)
        made = build_conversations(spec, tokenizer, seed=1, epochs=epochs)
        assert (data.train, data.mix) == (made.train, made.mix)
        files = {path: path.stat().st_ino for path in (tmp_path / "kept").glob("*.rows")}
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


@pytest.mark.parametrize("kind", ["pairs", "prompts"])
def test_any_changed_byte_changes_the_fingerprint(kind: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    spec = pair_spec(tmp_path) if kind == "pairs" else prompt_spec(tmp_path)
    seen = [rows_fingerprint(spec, tokenizer, seed=1)]
    for name in ["pairs.jsonl"] if kind == "pairs" else ["prompts.jsonl", "held.jsonl"]:
        whole = (tmp_path / name).read_bytes()
        for at in range(0, len(whole), len(whole) // 20):
            (tmp_path / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            seen.append(rows_fingerprint(spec, tokenizer, seed=1))
        (tmp_path / name).write_bytes(whole)
    more = {"max_length": 99, "pairs": {"repeats": "once"}} if kind == "pairs" else {"max_prompt_tokens": 9}
    for key, value in more.items():
        given = spec.model_dump(mode="json") | {key: value}
        seen.append(rows_fingerprint(type(spec).model_validate(given), tokenizer, seed=1))
    assert None not in seen and len(set(seen)) == len(seen) > 20


def test_rows_of_two_kinds_have_no_fingerprint_in_common(tmp_path: Path) -> None:
    pairs, tokenizer = pair_spec(tmp_path), tiny_tokenizer()
    given = {
        key: value for key, value in pairs.model_dump(mode="json").items() if key in DataSpec.model_fields
    }
    marks = {rows_fingerprint(spec, tokenizer, seed=0) for spec in (pairs, DataSpec.model_validate(given))}
    assert len(marks) == 2


@pytest.mark.parametrize("library", ["tokenizers", "trafilatura", "lxml", "justext", "charset-normalizer"])
def test_the_fingerprint_changes_with_the_libraries_that_decide_a_text(
    tmp_path, monkeypatch, library
) -> None:
    """trafilatura takes a page's text by the last three: bytes decoded, HTML parsed, paragraphs judged."""
    spec, tokenizer = specs(tmp_path)["plain"], tiny_tokenizer()
    before = rows_fingerprint(spec, tokenizer, seed=0)
    real = keeping.version
    monkeypatch.setattr(keeping, "version", lambda name: "0" if name == library else real(name))
    assert rows_fingerprint(spec, tokenizer, seed=0) != before


@pytest.mark.parametrize("kind", ["plain", "pairs", "prompts"])
def test_the_rows_of_a_broken_file_are_made_again(kind: str, tmp_path: Path) -> None:
    made = built(kind, tmp_path, keep=tmp_path / "kept")
    (file,) = (tmp_path / "kept").glob("*.rows")
    whole = file.read_bytes()
    broken = [whole[:-1], b"", b"x" * 99, whole[: len(whole) // 2]]
    broken += [
        whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in range(3, len(whole), len(whole) // 40)
    ]
    for content in broken:
        file.write_bytes(content)
        assert built(kind, tmp_path, keep=tmp_path / "kept") == made
        assert file.read_bytes() == whole
        assert [path.name for path in file.parent.iterdir() if path.suffix != ".read"] == [file.name]


def test_a_file_that_changes_while_it_is_read_leaves_nothing(tmp_path: Path) -> None:
    spec, tokenizer = specs(tmp_path)["tasks"], tiny_tokenizer()

    def epochs(rows: int) -> int:
        chats(tmp_path / "one.jsonl", 31)
        return 1

    build_conversations(spec, tokenizer, seed=0, keep=tmp_path / "kept", epochs=epochs)
    assert not (tmp_path / "kept").exists()


def test_the_files_that_were_used_last_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "MOST_FILES", 2)
    spec, tokenizer = specs(tmp_path)["plain"], tiny_tokenizer()
    files = {
        seed: tmp_path / "kept" / f"{rows_fingerprint(spec, tokenizer, seed=seed)}.rows" for seed in range(3)
    }
    for seed in (0, 1, 0, 2):  # 0 is read once more before 2 is written
        build_conversations(spec, tokenizer, seed=seed, keep=tmp_path / "kept")
        for age, path in enumerate(
            sorted((tmp_path / "kept").glob("*.rows"), key=lambda path: -path.stat().st_mtime_ns)
        ):
            os.utime(path, (1000 - age, 1000 - age))
    assert set((tmp_path / "kept").glob("*.rows")) == {files[0], files[2]}


def test_what_somebody_else_put_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "MOST_FILES", 1)
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
    build_conversations(spec, tokenizer, seed=0, keep=folder)
    ours = folder / f"{rows_fingerprint(spec, tokenizer, seed=0)}.rows"
    assert {path for path in folder.iterdir() if path.suffix != ".read"} == {*theirs, ours}


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
    build_conversations(spec, tokenizer, seed=0, keep=None)
    monkeypatch.setattr(keeping, "FEWEST_ROWS", 10_000)
    build_conversations(spec, tokenizer, seed=0, keep=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_folder_that_cannot_be_written_costs_nothing_but_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec, tokenizer = specs(tmp_path)["plain"], tiny_tokenizer()
    (tmp_path / "kept").write_text("a file")
    assert build_conversations(spec, tokenizer, seed=0, keep=tmp_path / "kept").train
    assert "not kept" in caplog.text


def test_nothing_of_a_row_is_left_out(tmp_path: Path) -> None:
    """A field that rows are given one day must be stored, too: the file would hold rows without it."""
    kinds = (TokenRow, PairRow, PromptRow, Prompt, Turn, ToolCall, Origin, Mix, DataReport)
    assert [" ".join(field.name for field in fields(kind)) for kind in kinds] == [
        "input_ids supervised family prompt_cut answer_cut rewritten template shots",
        "chosen_ids rejected_ids margin kind prompt_length prompt_cut answer_cut weight",
        "input_ids prompt prompt_cut",
        "origin turns family gold",
        "role content tool_calls tools",
        "name arguments",
        "path line",
        "sources numbers costs draws rendered renderings",
        "train holdout curriculum words against",
    ]
