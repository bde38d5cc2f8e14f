"""Data sets on the Hub as sources: the same rows as from files, and one clear word where they cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets.load import httpx
from pydantic import ValidationError

from aligner.data import keeping
from aligner.data.build import build_conversations
from aligner.data.kept import rows_fingerprint
from aligner.data.readers import read_source
from aligner.data.readers.hub import HubSplit
from aligner.data.rows import Conversation, Origin, Turn
from aligner.errors import DataError
from aligner.recipe.data import DataSpec, SourceSpec
from tests.data.hub_cache import COMMIT, keep_data_set
from tests.stages.tools import write_jsonl
from tests.tiny import tiny_tokenizer

CHATS = [{"instruction": f"Say {n}", "input": "", "output": f"{n}!" if n != 4 else ""} for n in range(30)]
TEST = [{"instruction": f"Ask {n}", "input": "", "output": f"{n}?"} for n in range(5)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of `datasets`, offline as all tests are, with one data set in it."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    keep_data_set(folder, "you/chats", {"train": CHATS, "test": TEST})
    return folder


def source(**keys: Any) -> SourceSpec:
    return SourceSpec.model_validate({"path": "hub:you/chats"} | keys)


@pytest.mark.parametrize("more", [{}, {"streaming": True, "take": 1000}], ids=["kept", "streamed"])
def test_rows_of_the_hub_are_those_of_a_file(more: dict[str, Any], tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "chats.jsonl", CHATS)
    theirs, ours = (
        read_source(source(**more), "conversation"),
        read_source(source(path=str(path)), "conversation"),
    )
    assert [row.turns for row in theirs.rows] == [row.turns for row in ours.rows]
    assert (theirs.format, theirs.dropped, theirs.rows_read) == (ours.format, ours.dropped, ours.rows_read)
    assert theirs.format == "alpaca" and theirs.dropped.total() == 1 and theirs.rows_read == 30
    assert theirs.rows[0].origin == Origin("hub:you/chats/train", 1)
    assert theirs.files == [] and theirs.sha256() != ours.sha256()


def test_a_split_and_a_format_may_be_named() -> None:
    rows = read_source(source(split="test", format="alpaca"), "conversation").rows
    turns = Turn("user", "Ask 0"), Turn("assistant", "0?")
    assert rows[0] == Conversation(Origin("hub:you/chats/test", 1), turns, "alpaca") and len(rows) == 5


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"split": "tset"}, r'hub:you/chats/tset: no split "tset"\s+did you mean "test"'),
        ({"split": "tset", "streaming": True, "take": 3}, 'no split "tset"'),
        ({"path": "hub:you/chat"}, r'hub:you/chat: the Hub cannot be reached.*\s+did you mean "you/chats"'),
        ({"path": "hub:me/other"}, r"hub:me/other: the Hub cannot be reached, and the data set is not in the cache"),
        ({"config": "defualt"}, r'hub:you/chats: cannot be read: .*defualt.*\s+config: did you mean "default"'),
        ({"revision": "2" * 40}, f"revision {'2' * 40} is not in the cache, which has {COMMIT}"),
        ({"format": "text"}, 'format "text" does not give conversation rows|format "text" is of files'),
        ({"format": "messages"}, 'hub:you/chats/train:1: "messages" is missing'),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as told:
        read_source(source(**keys), "conversation")
    assert told.value.exit_code == 2


def test_a_connection_that_breaks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield from CHATS[:3]
        raise httpx.ReadTimeout("timed out")

    split = HubSplit("hub:you/chats/train", "", broken())
    with pytest.raises(
        DataError, match=r"hub:you/chats/train: the connection .* broke \(ReadTimeout: timed out\)"
    ):
        list(split.records())


def test_of_several_configurations_one_has_to_be_named(cache: Path) -> None:
    keep_data_set(cache, "you/chats", {"train": TEST}, config="short")
    with pytest.raises(DataError, match="configuration"):
        read_source(source(), "conversation")
    assert len(read_source(source(config="short"), "conversation").rows) == 5


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"path": "a.jsonl", "split": "test"}, "split: for data sets on the Hub alone"),
        ({"path": "a.jsonl", "revision": "main"}, "revision: for data sets on the Hub alone"),
        ({"path": ["hub:you/chats", "a.jsonl"]}, "path: hub:you/chats stands in a list"),
        ({"path": "hub:chats"}, 'path: "hub:chats" is no id'),
        ({"path": "hub:you/chats/train"}, 'path: "hub:you/chats/train" is no id'),
    ],
)
def test_keys_that_do_not_go_together(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        source(**keys)


def test_the_commit_is_part_of_the_fingerprint(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "FEWEST_ROWS", 1)
    tokenizer = tiny_tokenizer()
    spec = DataSpec.model_validate({"train": [{"path": "hub:you/chats"}], "holdout": {"rows": 3}})
    made = build_conversations(spec, tokenizer, seed=0)
    for _ in range(2):
        data = build_conversations(spec, tokenizer, seed=0, keep=tmp_path / "rows")
        assert (data.train, data.holdout, data.report.to_json()) == (
            made.train,
            made.holdout,
            made.report.to_json(),
        )
    assert len(list((tmp_path / "rows").glob("*.rows"))) == 1
    before = rows_fingerprint(spec, tokenizer, seed=0)
    (cache / "you___chats" / "default" / "0.0.0" / COMMIT).rename(
        cache / "you___chats" / "default" / "0.0.0" / ("3" * 40)
    )
    assert rows_fingerprint(spec, tokenizer, seed=0) not in (before, None)
