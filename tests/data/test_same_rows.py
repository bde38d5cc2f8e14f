"""The small world's rows as they were when rows were first kept on disk: the same ones in the same order, bit for bit.

Digests were taken from the build that held every row in memory (commit 25b475e).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from aligner.data.build import (
    Conversations,
    Pairs,
    build_conversations,
    build_documents,
    build_pairs,
    build_training_prompts,
)
from aligner.data.mix import Mix
from aligner.recipe.data import DataSpec, PairDataSpec, PretrainDataSpec
from aligner.recipe.ppo import PromptsSpec
from tests.tiny import tiny_tokenizer

CHATS: dict[str, dict[str, Any]] = {
    "flan": {
        "train": [{"path": "data/world/sft/*.jsonl", "format": "messages", "cap": 100}],
        "holdout": {"rows": 150}, "max_length": 128, "cut_answers": 1,
    },
    "weights": {
        "train": [
            {"path": "data/world/sft/add.jsonl", "weight": 2.5},
            {"path": ["data/world/sft/sort.jsonl", "data/world/sft/copy.jsonl"], "weight": 0.3},
            {"path": "data/world/dev/documents.jsonl", "format": "documents"},
        ],
        "clean": {"deduplicate": True, "mask": ["phone"], "min_chars": 40},
        "holdout": {"sources": [{"path": "data/world/sft/classify.jsonl", "cap": 50}]},
        "max_length": 64, "cut_answers": 1,
    },
    "mixture": {
        "train": [
            {"path": "data/world/sft/[a-c]*.jsonl"},
            {"path": "data/world/dev/documents.jsonl", "format": "documents", "share": 0.2},
        ],
        "mixture": {"by": "temperature", "temperature": 2, "rows": 900},
        "decontaminate": {"against": [{"path": "data/world/heldout/items.jsonl"}], "ngram": 8, "ignore_above": 3},
        "holdout": {"families": ["add"], "rows": 30}, "cut_answers": 1,
    },
    "tasks": {
        "train": [
            {"path": "data/world/tasks/sort.yaml", "shots": [0, 2], "cap": 200},
            {"path": "data/world/sft/sort.jsonl"},
        ],
        "holdout": {"rows": 40}, "cut_answers": 1,
    },
}  # fmt: skip
EXPECTED = {
    "flan": "8b888101ad44b09d",
    "weights": "eddf4a7a39891619",
    "mixture": "3138bb7efb15c476",
    "tasks": "2ad8bed6bd94266d",
    "pairs": "601eb5914de3c2dd",
    "prompts": "66e177e77ebe04f5",
    "documents": "8349c4f019710e46",
}


def plain(value: Any) -> Any:
    """A value as JSON holds it, whatever its classes are called."""
    if is_dataclass(value) and not isinstance(value, type):
        return [plain(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    return value


def digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps([plain(value) for value in values]).encode()).hexdigest()[:16]


def where_rows_lie(mix: Mix) -> list[list[int]]:
    """Of each epoch where there are tasks: the place of every row of the first one."""
    first = range(len(mix.sources) - mix.renderings) if any(cost.template for cost in mix.costs) else []
    return [[found.get(row, row) for row in first] for found in ({}, *mix.rendered)] if first else []


def of_mixed(built: Conversations | Pairs) -> str:
    mix = built.mix
    epochs = [list(mix.epoch(number)) for number in range(4)]
    costs = [mix.costs[number] for number in range(len(mix.sources))]
    return digest(
        built.train,
        built.holdout,
        built.report.to_json(),
        mix.sources,
        mix.numbers,
        costs,
        where_rows_lie(mix),
        epochs,
    )


@pytest.fixture(autouse=True)
def _paths_are_those_of_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent.parent)


@pytest.mark.parametrize("name", CHATS)
def test_conversations(name: str) -> None:
    built = build_conversations(
        DataSpec.model_validate(CHATS[name]), tiny_tokenizer(), seed=3, epochs=lambda rows: 3
    )
    assert of_mixed(built) == EXPECTED[name]


def test_pairs() -> None:
    spec = {
        "train": [
            {"path": "data/world/*/pairs.jsonl", "weight": 0.7},
            {"path": "data/world/rankings.jsonl", "cap": 500},
        ],
        "pairs": {"weigh": "prompt", "repeats": "once"},
        "holdout": {"rows": 100},
        "cut_answers": 1,
    }
    built = build_pairs(PairDataSpec.model_validate(spec), tiny_tokenizer(), seed=3)
    assert of_mixed(built) == EXPECTED["pairs"]


def test_prompts() -> None:
    spec = {
        "train": [{"path": "data/world/prompts.jsonl.gz", "cap": 800}],
        "holdout": [{"path": "data/world/dev/prompts.jsonl"}],
        "max_prompt_tokens": 40,
    }
    given = PromptsSpec.model_validate(spec)
    built = build_training_prompts(given, tiny_tokenizer(), seed=3)
    assert digest(built.rows, built.report.to_json()) == EXPECTED["prompts"]


def test_documents() -> None:
    spec = {
        "train": [
            {"path": "data/world/repeats.jsonl.gz", "cap": 1500},
            {"path": "data/world/dialogues.jsonl.gz", "format": "messages", "weight": 0.1},
        ],
        "curriculum": {"sources": [{"path": "data/world/dev/documents.jsonl"}], "until": 0.5},
        "holdout": {"rows": 200},
        "clean": {"rules": ["gopher_word_length", "c4_lorem_ipsum"]},
    }
    built = build_documents(PretrainDataSpec.model_validate(spec), seed=3)
    values = built.train, built.curriculum, built.holdout, built.report.to_json()
    assert digest(*values) == EXPECTED["documents"]
