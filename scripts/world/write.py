"""Write the world's files so that the same seed gives the same bytes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scripts.world import evaluation
from scripts.world.bank import Bank
from scripts.world.claims import checks, claims
from scripts.world.dialogues import dialogues
from scripts.world.documents import DOCUMENT_CHARS, documents, heldout_documents
from scripts.world.items import Split
from scripts.world.pairs import pairs, rankings
from scripts.world.repeats import repeats
from scripts.world.tasks import tasks
from scripts.world.tuning import Row, rl_prompts, sft_rows

SPLITS: tuple[Split, ...] = ("dev", "heldout")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines; `.gz` by name, without the time and name that would make each run differ."""
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".gz":
        path.write_bytes(data)
        return
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(data)


def write_world(out: Path, seed: int) -> None:
    """All files of the world under `out`."""
    bank = Bank(seed)
    train = documents(bank, "documents", DOCUMENT_CHARS)
    heldout = heldout_documents(bank, "heldout_documents", train)
    asked = evaluation_rows(bank)
    withheld = [row["prompt"] for rows in asked.values() for row in rows]
    write_rows(out / "documents.jsonl.gz", train)
    write_rows(out / "repeats.jsonl.gz", repeats(bank, train, withheld))
    write_rows(out / "claims.jsonl.gz", claims(bank))
    write_rows(out / "checks.jsonl.gz", checks(bank))
    write_rows(out / "dialogues.jsonl.gz", dialogues(bank))
    write_rows(out / "heldout_documents.jsonl", heldout)
    write_rows(out / "dev" / "documents.jsonl", heldout_documents(bank, "dev/documents", train + heldout))
    for family in bank.families:
        write_rows(out / "sft" / f"{family}.jsonl", sft_rows(bank, family))
    write_rows(out / "pairs.jsonl.gz", pairs(bank, "train"))
    write_rows(out / "rankings.jsonl", rankings(bank))
    write_rows(out / "prompts.jsonl.gz", rl_prompts(bank))
    for name, rows in asked.items():
        write_rows(out / name, rows)
    for task in tasks(bank):
        write_rows(out / "tasks" / f"{task.name}.jsonl.gz", task.rows)
        (out / "tasks" / f"{task.name}.yaml").write_text(task.text, encoding="utf-8")


def evaluation_rows(bank: Bank) -> dict[str, list[Row]]:
    """What no training file may ask or tell, by file."""
    rows: dict[str, list[Row]] = {}
    for split in SPLITS:
        rows[f"{split}/items.jsonl"] = evaluation.items(bank, split)
        rows[f"{split}/phrasings.jsonl"] = evaluation.phrasings(bank, split)
        rows[f"{split}/prompts.jsonl"] = evaluation.prompts(bank, split)
        rows[f"{split}/pairs.jsonl"] = pairs(bank, split)
    return rows | {"heldout/families.jsonl": evaluation.families(bank)}
