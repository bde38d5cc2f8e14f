"""The speed of rows on their way to tokens, beside TRL's preparation and the bare tokenizer.

Rows are the small world's instruction data, about 30 tokens each, unless BENCH_ROWS names other files.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

from datasets import Dataset, disable_caching, disable_progress_bars
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from aligner.data.readers import read_source
from aligner.data.rows import Conversation, Turn
from aligner.data.templates import render_texts
from aligner.data.tokens import tokenize_conversations
from aligner.models.tokenizer import train_tokenizer
from aligner.recipe.data import SourceSpec

FILES = "data/world/sft"  # the environment's BENCH_ROWS names others, such as Alpaca's
ROWS, MAX_LENGTH, VOCAB = 2000, 512, 4096

Task = Callable[[], float]  # does the work once and says how many seconds it took


def some_rows(count: int) -> list[Conversation]:
    """Conversations out of the files of `FILES`, in any order."""
    source = SourceSpec(path=os.environ.get("BENCH_ROWS", FILES))
    rows = [row for row in read_source(source, "conversation").rows if isinstance(row, Conversation)]
    random.Random(0).shuffle(rows)
    return rows[:count]


def a_tokenizer(rows: list[Conversation]) -> PreTrainedTokenizerBase:
    """Byte-level BPE with our own template, learnt from the rows."""
    return train_tokenizer((turn.content for row in rows for turn in row.turns), vocab_size=VOCAB)


def timed(work: Callable[[], object]) -> Task:
    """The work as a task."""

    def once() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return once


def against_trl(small_model: Callable[[PreTrainedTokenizerBase], object]) -> tuple[str, Task, Task]:
    """Rows to ids with labels: ours, and what TRL's trainer does with the same rows before it trains."""
    rows = some_rows(ROWS)
    tokenizer = a_tokenizer(rows)
    disable_caching()
    disable_progress_bars()
    data = Dataset.from_list(
        [
            {"prompt": _messages(row.turns[:1]), "completion": _messages(row.turns[1:])}
            for row in rows
        ]
    )  # fmt: skip
    args = SFTConfig(output_dir="unused", max_length=MAX_LENGTH, use_cpu=True, bf16=False, report_to=[])
    trainer = SFTTrainer(
        model=small_model(tokenizer), args=args, train_dataset=data.select([0]), processing_class=tokenizer
    )

    def ours() -> object:
        return [row.labels for row in tokenize_conversations(rows, tokenizer, MAX_LENGTH)]

    def theirs() -> object:
        return trainer._prepare_dataset(data, tokenizer, args, False, None, "bench")

    return "TRL's preparation", timed(ours), timed(theirs)


def against_bare() -> tuple[str, Task, Task]:
    """Rows to ids with masks, and the tokenizer alone on the same texts."""
    rows = some_rows(ROWS)
    tokenizer = a_tokenizer(rows)
    texts = render_texts(
        [row.turns for row in rows], tokenizer, ask=False, origins=[row.origin for row in rows]
    )
    backend = tokenizer.backend_tokenizer

    def ours() -> object:
        return tokenize_conversations(rows, tokenizer, MAX_LENGTH)

    def theirs() -> object:
        return [encoding.ids for encoding in backend.encode_batch(texts, add_special_tokens=False)]

    return "bare encode_batch", timed(ours), timed(theirs)


def _messages(turns: tuple[Turn, ...]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]
