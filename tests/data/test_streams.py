"""Streams: the first rows and no more, and a refusal of all that needs the others."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from aligner.data.build import build_conversations
from aligner.data.readers import read_source
from aligner.errors import DataError
from aligner.recipe.data import DataSpec, PretrainDataSpec, SourceSpec
from tests.stages.tools import write_jsonl
from tests.tiny import tiny_tokenizer

CHATS = [{"instruction": f"Say {n}", "output": f"{n}!" if n != 4 else ""} for n in range(60)]


def stream(path: Path, take: int, **keys: Any) -> SourceSpec:
    return SourceSpec.model_validate({"path": str(path), "streaming": True, "take": take} | keys)


def packed(folder: Path, suffix: str) -> Path:
    """The rows in a file of this kind."""
    path = folder / f"chats{suffix}"
    lines = "".join(json.dumps(row) + "\n" for row in CHATS).encode()
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(CHATS), path)
    elif suffix == ".csv":
        path.write_text(
            "instruction,output\n" + "".join(f"{r['instruction']},{r['output']}\n" for r in CHATS)
        )
    elif suffix == ".jsonl.gz":
        path.write_bytes(gzip.compress(lines))
    elif suffix == ".jsonl.zst":
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(lines)
    else:
        path.write_bytes(lines)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv", ".parquet"])
def test_the_first_rows_are_read_with_all_accounts(suffix: str, tmp_path: Path) -> None:
    path = packed(tmp_path, suffix)
    whole = read_source(SourceSpec(path=str(path)), "conversation")
    first = read_source(stream(path, 10), "conversation")
    assert whole.rows_read == 60 and list(first.rows) == whole.rows[:9]
    assert first.rows_read == 10 and first.dropped == whole.dropped and first.dropped.total() == 1
    assert read_source(stream(path, 1000), "conversation").rows == whole.rows


def test_what_follows_is_never_read(tmp_path: Path) -> None:
    """Broken lines behind the last row that is asked for: whoever reads on finds them."""
    path = tmp_path / "endless.jsonl"
    write_jsonl(path, CHATS)
    with path.open("ab") as file:
        file.write(b"\xff not a row\n" * 5)
    with pytest.raises(DataError):
        read_source(SourceSpec(path=str(path)), "conversation")
    assert read_source(stream(path, 60), "conversation").rows_read == 60


def test_malformed_rows_are_rows_of_the_stream(tmp_path: Path) -> None:
    """In a wrong format no row is good; whoever counts the good ones alone reads to the end of the Hub."""
    path = tmp_path / "endless.jsonl"
    path.write_text('{"text": 1}\n' * 50)
    with pytest.raises(DataError, match="20 rows cannot be read, the first 3 as told; 0 can"):
        read_source(stream(path, 20), "document")


def test_a_stream_is_a_source_like_any_other(tmp_path: Path) -> None:
    """The same build as from a file of these rows alone: order, hold-out and accounts."""
    path, short = packed(tmp_path, ".jsonl"), tmp_path / "short" / "chats.jsonl"
    short.parent.mkdir()
    write_jsonl(short, CHATS[:20])
    given = [stream(path, 20).model_dump(), {"path": str(short)}]
    one, other = (
        build_conversations(
            DataSpec.model_validate({"train": [source], "holdout": {"rows": 5}}), tiny_tokenizer(), seed=4
        )
        for source in given
    )
    assert (one.train, one.holdout, one.mix) == (other.train, other.holdout, other.mix)
    (theirs,), (ours,) = one.report.train, other.report.train
    assert (theirs.rows_read, theirs.rows_used, theirs.dropped) == (
        ours.rows_read,
        ours.rows_used,
        ours.dropped,
    )


@pytest.mark.parametrize(
    ("source", "more", "said"),
    [
        ({"streaming": True}, {}, "streaming: a stream has no end"),
        ({"take": 5}, {}, "take: goes with streaming: true"),
        ({"streaming": True, "take": 5, "cap": 3}, {}, "cap: draws from all rows"),
        ({"streaming": True, "take": 5}, {"holdout": {"families": ["a"]}}, "holdout.families: needs all rows, and train.0"),
        ({"streaming": True, "take": 5}, {"mixture": {"by": "examples"}}, "train.0.streaming: by: examples goes by the number"),
    ],
)  # fmt: skip
def test_what_needs_the_whole_is_refused(source: dict[str, Any], more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataSpec.model_validate({"train": [{"path": "a.jsonl"} | source]} | more)
    if "families" in said:
        with pytest.raises(ValidationError, match=said):
            PretrainDataSpec.model_validate({"train": [{"path": "a.jsonl"} | source]} | more)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.json", "conversation"), ("a.txt", "document"), ("kto.jsonl", "pair")]
)
def test_files_that_are_read_whole_are_no_streams(name: str, kind: Any, tmp_path: Path) -> None:
    judged = {"prompt": "a", "completion": "b", "label": True}
    (tmp_path / name).write_text(json.dumps(judged if name == "kto.jsonl" else CHATS[0]) + "\n")
    with pytest.raises(DataError, match="streaming: format .* is read whole, or its rows together"):
        read_source(stream(tmp_path / name, 5), kind)
