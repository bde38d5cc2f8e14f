"""Cases 5 to 12 of forty ways in which alignment runs have failed elsewhere: data."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from aligner.cli import app
from aligner.data.build import build_conversations, build_pairs
from aligner.data.readers import read_source
from aligner.data.readers.json_files import MAX_ROW_BYTES
from aligner.data.show import show_dropped
from aligner.errors import DataError
from aligner.preflight import check_ahead
from aligner.recipe.data import DataSpec, DecontaminateSpec, HoldoutSpec, PairDataSpec, SourceSpec
from aligner.recipe.load import complete_yaml
from aligner.run.folder import RunFolder
from aligner.run.manifest import Manifest
from aligner.stages.reward import tell_if_swapped
from aligner.stages.sft import train_sft
from tests.run.fake import sft_recipe
from tests.stages.test_sft import recipe as tiny_sft
from tests.tiny import tiny_tokenizer

GOOD = {"instruction": "Add 1 and 1.", "input": "", "output": "2"}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def told(path: Path, content: bytes | None = None, *, kind: Any = "conversation", form: Any = "auto") -> str:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_source(SourceSpec(path=str(path), format=form), kind)
    assert caught.value.exit_code == 2 and all(problem.remedy for problem in caught.value.problems)
    return str(caught.value)


def test_case_05_two_schemas_in_one_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD, GOOD, {"prompt": "Add.", "completion": "2"}])
    wrong = told(path)
    assert f'{path}:3: "instruction" is missing (keys: prompt, completion)' in wrong


def test_case_06_latin_1_is_found_before_a_model_is_loaded(tmp_path: Path) -> None:
    lines = [json.dumps(GOOD).encode()] * 499 + ['{"instruction": "déjà", "output": "x"}'.encode("latin-1")]
    (tmp_path / "tasks.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    recipe = sft_recipe(tmp_path / "run")
    source = SourceSpec(path=str(tmp_path / "tasks.jsonl"))
    recipe = recipe.model_copy(update={"data": DataSpec(train=[source])})  # its base does not even exist
    with pytest.raises(DataError, match=r"tasks\.jsonl:500: not UTF-8 \(byte 19 of the row\)"):
        check_ahead([recipe])


def test_case_07_truncated_jsonl(tmp_path: Path) -> None:
    row = json.dumps(GOOD).encode()
    assert "a.jsonl:2: not JSON" in told(tmp_path / "a.jsonl", row + b"\n" + row[:20])
    assert "b.jsonl:1: not JSON" in told(tmp_path / "b.jsonl", row + row + b"\n")  # two on one line
    assert "not a whole gzip file" in told(tmp_path / "c.jsonl.gz", gzip.compress(row * 50)[:-9])


def damaged(path: Path) -> list[str]:
    """Ten rows that can be read between four that cannot, the first line among them; and what is told of those."""
    good = [json.dumps({**GOOD, "instruction": f"Add {number}."}).encode() for number in range(10)]
    bad = [
        b'{"instruction": "Ad',
        good[0] + good[1],
        b'{"instruction": "d\xe9j\xe0", "output": "x"}',
        b'{"output": 5}',
    ]
    path.write_bytes(b"\n".join([bad[0], *good[:4], bad[1], *good[4:8], bad[2], *good[8:], bad[3]]))
    faults = [
        "not JSON (Invalid control",
        "not JSON (Extra data",
        "not UTF-8 (byte 19 of",
        '"instruction" is missing',
    ]
    return [f"{path}:{line}: {fault}" for line, fault in zip((1, 6, 11, 14), faults, strict=True)]


def test_case_07_bad_rows_are_skipped_when_the_recipe_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = damaged(tmp_path / "a.jsonl")
    source = SourceSpec(path=str(tmp_path / "a.jsonl"), skip_bad_rows=4)
    asked = tiny_sft(tmp_path, steps=1).model_copy(update={"data": DataSpec(train=[source])})
    check_ahead([asked])
    assert "4 of 14 rows cannot be read and are left out" in capsys.readouterr().err
    with RunFolder.open(asked, recipe_text="") as run:
        train_sft(asked, run)
    (told,) = Manifest.read(tmp_path / "run").data["train"]
    assert told["dropped"] == {"bad_row": 4} and told["rows_used"] == 10 and told["rows_read"] == 14
    assert all(row.startswith(fault) for row, fault in zip(told["bad_rows"], expected, strict=True))
    built = build_conversations(asked.data, tiny_tokenizer(), seed=0)
    out = io.StringIO()
    show_dropped(built.report, 20, console=Console(file=out, width=300))
    assert "bad_row: 4" in out.getvalue() and out.getvalue().count(f"  {tmp_path / 'a.jsonl'}:") == 4
    assert len(built.train) == 10 and 'a.jsonl:14  "instruction" is missing (keys: output)' in out.getvalue()


def test_case_07_one_bad_row_too_many_is_the_error_it_was(tmp_path: Path) -> None:
    expected = damaged(tmp_path / "a.jsonl")
    errors = []
    for allowed in (0, 3):
        with pytest.raises(DataError) as caught:
            source = SourceSpec(path=str(tmp_path / "a.jsonl"), format="alpaca", skip_bad_rows=allowed)
            read_source(source, "conversation")
        errors.append(caught.value.problems)
    assert errors[0][:3] == errors[1][:3] and len(errors[0]) == len(errors[1]) == 4
    assert all(str(told).startswith(begins) for told, begins in zip(errors[0], expected[:3], strict=False))
    assert "4 rows cannot be read, the first 3 as told; 10 can" in errors[0][3].what
    assert errors[0][3].remedy.endswith("or leave out such rows with skip_bad_rows: 4 in this source")
    cut = gzip.compress((tmp_path / "a.jsonl").read_bytes())[:-9]  # how many rows are lost nobody knows
    (tmp_path / "b.jsonl.gz").write_bytes(cut)
    with pytest.raises(DataError, match="not a whole gzip file"):
        read_source(SourceSpec(path=str(tmp_path / "b.jsonl.gz"), skip_bad_rows=99), "conversation")


def test_case_07_rows_may_be_skipped_from_the_command_line(tmp_path: Path) -> None:
    damaged(tmp_path / "a.jsonl")
    asked = tiny_sft(tmp_path, steps=1)
    asked = asked.model_copy(update={"data": DataSpec(train=[SourceSpec(path=str(tmp_path / "a.jsonl"))])})
    (tmp_path / "sft.yaml").write_text(complete_yaml(asked))
    refused = CliRunner().invoke(app, ["sft", str(tmp_path / "sft.yaml")])
    assert refused.exit_code == 2 and "a.jsonl:1: not JSON" in refused.output
    said = ["-s", "data.train.0.skip_bad_rows=4"]
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "sft.yaml"), "--dropped", *said])
    assert shown.exit_code == 0 and "bad_row: 4" in shown.output and "a.jsonl:14  " in shown.output


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "there are no rows"),
        (b"\n \n\n", "there are no rows"),
        (b'{"instruction": null, "output": "x"}', '"instruction" is missing'),
        (b'{"instruction": NaN, "output": "x"}', '"instruction" is a number'),
        (b'{"instruction": 5, "output": "x"}', '"instruction" is a number'),
        (json.dumps(GOOD).encode("utf-16"), "not UTF-8"),
        (b'{"instruction": "a\0b", "output": "x"}', "not JSON"),
        (b'{"instruction": "\\ud800", "output": "x"}', "half of a surrogate pair"),
        (b'{"instruction": "a", "output": "' + b"x" * MAX_ROW_BYTES + b'"}', "the row has more than 20,000,000 bytes"),
    ],
    ids=["empty", "blank", "null", "NaN", "number", "UTF-16", "NUL", "surrogate", "huge"],
)  # fmt: skip
def test_case_08_odd_contents(tmp_path: Path, content: bytes, word: str) -> None:
    assert word in told(tmp_path / "a.jsonl", content, form="alpaca")


def test_case_08_a_byte_order_mark_and_odd_line_ends_are_read_right(tmp_path: Path) -> None:
    row = {**GOOD, "output": "a\u2028b"}
    text = "\ufeff" + json.dumps(row, ensure_ascii=False) + "\r\n\r\n" + json.dumps(GOOD) + "\r\n"
    (tmp_path / "a.jsonl").write_bytes(text.encode())
    found = read_source(SourceSpec(path=str(tmp_path / "a.jsonl")), "conversation")
    assert [row.turns[-1].content for row in found.rows] == ["a\u2028b", "2"]  # type: ignore[union-attr]


def test_case_09_role_errors(tmp_path: Path) -> None:
    def chat(*turns: tuple[str, str]) -> dict[str, Any]:
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    good = chat(("user", "Hi"), ("assistant", "Ho"))
    assert 'a.jsonl:2: unknown role "human"' in told(
        write(tmp_path / "a.jsonl", [good, chat(("human", "Hi"), ("gpt", "Ho"))])
    )
    assert 'b.jsonl:2: "messages" is empty' in told(write(tmp_path / "b.jsonl", [good, {"messages": []}]))
    rows = [good, chat(("assistant", "Ho")), chat(("user", "Hi"))]
    found = read_source(SourceSpec(path=str(write(tmp_path / "c.jsonl", rows))), "conversation")
    assert found.dropped == {"no_prompt": 1, "no_answer": 1} and found.rows_read == 3
    known = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}
    twice = {"conversations": [{"from": "human", "value": "Hi"}, *known["conversations"]]}
    found = read_source(SourceSpec(path=str(write(tmp_path / "d.jsonl", [known, twice]))), "conversation")
    assert found.dropped == {"roles_out_of_order": 1} and len(found.rows) == 1


def test_case_09_turns_that_nobody_takes_are_in_no_row(tmp_path: Path) -> None:
    """Two users in a row, the assistant first, two answers, a system turn alone: dropped by name, wherever they stand."""

    def said(*names: str) -> list[dict[str, str]]:
        return [{"role": role, "content": str(number)} for number, role in enumerate(names)]

    twice, first = said("user", "user", "assistant"), said("assistant", "user", "assistant")
    good = {"messages": said("system", "user", "assistant", "user", "assistant")}
    chats = [good, *({"messages": talk} for talk in (twice, first, said("user", "assistant", "assistant")))]
    expected = {"roles_out_of_order": 2, "no_prompt": 1}
    for kind in ("conversation", "document", "prompt"):
        found = read_source(SourceSpec(path=str(write(tmp_path / "a.jsonl", chats))), kind)
        assert found.dropped == expected and found.rows_read == 4 and len(found.rows) == 1
        assert [row.origin.line for row in found.samples["roles_out_of_order"]] == [2, 4]
    alone = write(tmp_path / "b.jsonl", [good, {"messages": said("system")}])
    assert read_source(SourceSpec(path=str(alone)), "conversation").dropped == {"no_prompt": 1}
    for row, kind in (
        ({"prompt": twice[:2], "chosen": "a", "rejected": "b"}, "pair"),
        ({"chosen": [*twice[:2], *said("assistant")], "rejected": twice}, "pair"),
        ({"prompt": twice[:2]}, "prompt"),
        ({"prompt": twice[:2], "completion": "a"}, "conversation"),
    ):
        found = read_source(SourceSpec(path=str(write(tmp_path / "c.jsonl", [row]))), kind)  # type: ignore[arg-type]
        assert found.dropped == {"roles_out_of_order": 1}, row
    kto = [{"prompt": twice[:2], "completion": "a" * (n + 1), "label": bool(n)} for n in range(2)]
    found = read_source(SourceSpec(path=str(write(tmp_path / "d.jsonl", kto))), "pair")
    assert found.dropped == {"roles_out_of_order": 1}


def test_case_09_a_source_without_one_good_row_is_refused_by_its_first_row(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "Hi"}]} for _ in range(3)]
    spec = DataSpec(train=[SourceSpec(path=str(write(tmp_path / "a.jsonl", rows)))])
    with pytest.raises(DataError, match=r"no rows are left .*'no_answer': 3.* no_answer .*a\.jsonl:1"):
        build_conversations(spec, tiny_tokenizer(), seed=0)


def test_case_10_a_cut_answer_is_counted_and_never_the_prompts_fault(tmp_path: Path) -> None:
    long_prompt = {"instruction": "word " * 300 + "Add.", "output": "two"}
    source = [SourceSpec(path=str(write(tmp_path / "a.jsonl", [long_prompt] * 2 + [GOOD])))]
    built = build_conversations(DataSpec(train=source, max_length=64), tiny_tokenizer(), seed=0)
    assert all(any(row.supervised) for row in built.train) and not any(row.answer_cut for row in built.train)
    long_answer = {"instruction": "Add.", "output": "word " * 300}
    source = [SourceSpec(path=str(write(tmp_path / "b.jsonl", [long_answer, *[GOOD] * 9])))]
    with pytest.raises(DataError, match="1 of 10 rows would have their answer cut at 64 tokens"):
        build_conversations(DataSpec(train=source, max_length=64), tiny_tokenizer(), seed=0)


def test_case_11_equal_empty_and_contradicting_pairs(tmp_path: Path) -> None:
    def pair(chosen: str, rejected: str, prompt: str = "Hi") -> dict[str, str]:
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}

    rows = [pair("same", "same"), pair("", "bad"), pair("a", "b"), pair("b", "a"), pair("x", "y", "Ho")]
    spec = PairDataSpec(train=[SourceSpec(path=str(write(tmp_path / "a.jsonl", rows)))])
    built = build_pairs(spec, tiny_tokenizer(), seed=0)
    (source,) = built.report.train
    assert source.dropped == {"answers_equal": 1, "empty_answer": 1, "conflicting_pair": 2}
    assert source.rows_read == 5 == len(built.train) + 4


def test_case_11_labels_that_may_be_swapped_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunFolder.open(sft_recipe(tmp_path), recipe_text="") as run:
        tell_if_swapped(run, [1.0, 0.5, -1.0, 0.0])
        assert capsys.readouterr().err == ""
        tell_if_swapped(run, [-1.0, -0.5, -1.0, 1.0])
    assert "right about 25% of 4 held-out pairs, worse than a coin" in capsys.readouterr().err


def test_case_12_no_row_is_trained_on_and_measured(tmp_path: Path) -> None:
    rows = [{**GOOD, "instruction": f"Add {number}."} for number in range(9)]
    train = [SourceSpec(path=str(write(tmp_path / "a.jsonl", rows)))]
    held = HoldoutSpec(sources=[SourceSpec(path=str(write(tmp_path / "b.jsonl", rows[:2])))])
    built = build_conversations(DataSpec(train=train, holdout=held), tiny_tokenizer(), seed=0)
    assert sum(built.report.train[0].dropped.values()) == 2 and len(built.train) == 7
    against = [SourceSpec(path=str(tmp_path / "b.jsonl"))]
    strict = DecontaminateSpec(against=against, overlap="error")
    with pytest.raises(DataError, match=r"a\.jsonl:1: has something of .*b\.jsonl:1"):
        build_conversations(DataSpec(train=train, decontaminate=strict), tiny_tokenizer(), seed=0)
