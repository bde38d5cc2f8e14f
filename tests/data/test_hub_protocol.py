"""Data sets on a small Hub that speaks the real one's protocol: `datasets` and its client as users have them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub.dataset_server import DataSets, data_set_hub

ROOT = Path(__file__).parent.parent.parent
MAIN, OLD = "a" * 40, "b" * 40
CHATS = [{"instruction": f"Say {n}", "input": "", "output": f"{n}!"} for n in range(30)]
CARD = b"""---
configs:
- {config_name: short, data_files: short.jsonl}
- {config_name: long, data_files: long.jsonl}
---
# Lines
"""

READ = """
import json, sys
from aligner.data.build import build_conversations
from aligner.data.readers import read_source
from aligner.errors import DataError
from aligner.recipe.data import DataSpec, SourceSpec
from tests.tiny import tiny_tokenizer

def told(spec):
    try:
        source = read_source(SourceSpec.model_validate(spec), "conversation")
    except DataError as error:
        return {"error": str(error)}
    return {
        "rows": [[turn.content for turn in row.turns] for row in source.rows],
        "format": source.format, "identity": source.identity, "sha256": source.sha256(),
    }

found = {name: told(spec) for name, spec in json.loads(sys.argv[1]).items()}
for key in found.keys() & {"main", "stream"}:
    if "error" not in found[key]:
        asked = {"train": [json.loads(sys.argv[1])[key]], "holdout": {"rows": 2}}
        built = build_conversations(DataSpec.model_validate(asked), tiny_tokenizer(), seed=0)
        found[key]["report"] = built.report.to_json()["train"][0]
print("told: " + json.dumps(found))
"""

ASKED: dict[str, dict[str, Any]] = {
    "main": {"path": "hub:you/chats"},
    "split": {"path": "hub:you/chats", "split": "test"},
    "stream": {"path": "hub:you/chats", "streaming": True, "take": 4},
    "long": {"path": "hub:you/lines", "config": "long"},
    "long stream": {"path": "hub:you/lines", "config": "long", "streaming": True, "take": 5},
    "wrong split": {"path": "hub:you/chats", "split": "tset"},
    "wrong split of a stream": {"path": "hub:you/chats", "split": "tset", "streaming": True, "take": 4},
    "wrong name": {"path": "hub:you/chat"},
    "wrong revision": {"path": "hub:you/chats", "revision": "v2"},
    "wrong config": {"path": "hub:you/lines", "config": "lnog"},
    "no config": {"path": "hub:you/lines"},
}
OLDER = {
    "old": {"path": "hub:you/chats", "revision": "v1"},
    "commit": {"path": "hub:you/chats", "revision": OLD},
}


def parquet(rows: list[dict[str, str]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def lines(rows: list[dict[str, str]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@dataclass
class Starts:
    """What a first start found with a network, and what a later one did without it."""

    online: dict[str, Any]
    offline: dict[str, Any]


def start(asked: dict[str, Any], folder: Path, **env: str) -> dict[str, Any]:
    """A process of its own: the client reads where the Hub is when it is imported. Its folder has other `you/chats`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    env = (
        kept
        | {"HF_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1"}
        | env
    )
    command = [sys.executable, "-c", READ, json.dumps(asked)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (told,) = (line for line in done.stdout.splitlines() if line.startswith("told: "))
    found: dict[str, Any] = json.loads(told.removeprefix("told: "))
    return found


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starts]:
    folder = tmp_path_factory.mktemp("hub")
    (folder / "you" / "chats").mkdir(parents=True)  # a folder by this name is no data set of the Hub
    (folder / "you" / "chats" / "train.jsonl").write_bytes(lines(CHATS[:1]))
    data = DataSets(
        commits={
            "you/chats": {
                MAIN: {
                    "data/train-00000-of-00002.parquet": parquet(CHATS[:20]),
                    "data/train-00001-of-00002.parquet": parquet(CHATS[20:]),
                    "data/test-00000-of-00001.parquet": parquet(CHATS[:5]),
                },
                OLD: {"data/train-00000-of-00001.parquet": parquet(CHATS[:7])},
            },
            "you/lines": {MAIN: {"README.md": CARD, "short.jsonl": lines(CHATS[:3]), "long.jsonl": lines(CHATS)}},
        },
        refs={"you/chats": {"main": MAIN, "v1": OLD}, "you/lines": {"main": MAIN}},
    )  # fmt: skip
    with data_set_hub(data):
        online = start(ASKED, folder, HF_ENDPOINT=data.url)
    fetched = {key: spec for key, spec in ASKED.items() if "stream" not in key}
    offline = start(fetched | OLDER, folder, HF_HUB_OFFLINE="1")
    yield Starts(online, offline)


def turns(rows: list[dict[str, str]]) -> list[list[str]]:
    return [[row["instruction"], row["output"]] for row in rows]


def test_rows_are_read_over_the_protocol(starts: Starts) -> None:
    found = starts.online
    assert found["main"]["rows"] == turns(CHATS) and found["split"]["rows"] == turns(CHATS[:5])
    assert found["stream"]["rows"] == turns(CHATS[:4]) and found["long stream"]["rows"] == turns(CHATS[:5])
    assert found["long"]["rows"] == turns(CHATS) and found["long"]["format"] == "alpaca"


def test_the_commit_is_in_the_report_that_a_manifest_holds(starts: Starts) -> None:
    for key in ("main", "stream"):
        report = starts.online[key]["report"]
        assert report["identity"] == f"you/chats default train {MAIN}"
        assert report["sha256"] == starts.online[key]["sha256"]


def test_a_second_start_needs_no_network(starts: Starts) -> None:
    for name in ("main", "split", "long"):
        assert starts.offline[name] == starts.online[name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrong split", 'hub:you/chats/tset: no split "tset"\n    did you mean "test"?'),
        ("wrong split of a stream", 'hub:you/chats/tset: no split "tset"\n    did you mean "test"?'),
        ("wrong name", "hub:you/chat: cannot be read: Dataset 'you/chat' doesn't exist on the Hub"),
        (
            "wrong revision",
            "hub:you/chats: cannot be read: Revision 'v2' doesn't exist for dataset 'you/chats'"
            " on the Hub.\n    check the id and the revision",
        ),
        ("wrong config", 'config: did you mean "long"?'),
        ("no config", "config: valid: short, long"),
    ],
)
def test_what_is_not_on_the_hub_is_told(name: str, said: str, starts: Starts) -> None:
    assert said in starts.online[name]["error"]
    if name in starts.offline and name != "no config":  # offline the only one that was fetched is read
        assert "error" in starts.offline[name]


def test_another_revision_is_not_read_for_the_one_that_was_asked_for(starts: Starts) -> None:
    """Offline, `datasets` takes the newest commit that it has."""
    for name in ("old", "commit"):
        assert starts.offline[name]["error"].startswith("hub:you/chats: revision ")
        assert f"is not in the cache, which has {MAIN}" in starts.offline[name]["error"]
