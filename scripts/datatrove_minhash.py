"""datatrove's near duplicates, run by its own environment: a file of texts in, seconds and what was dropped out.

`python datatrove_minhash.py TEXTS.json spacy|spaces`; nothing of aligner is imported here.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from loguru import logger


class Spaces:
    """Words parted at spaces, which costs next to nothing: what is left is MinHash."""

    def word_tokenize(self, text: str) -> list[str]:
        """The words."""
        return text.split()


def main() -> None:
    """Run the four blocks on all texts and print one line of JSON."""
    logger.remove()
    texts = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as folder:
        signatures, duplicates, removed = (
            f"{folder}/{name}" for name in ("signatures", "duplicates", "removed")
        )
        config = MinhashConfig()
        first = MinhashDedupSignature(signatures, config)
        if sys.argv[2] == "spaces":
            first.word_tokenizer = Spaces()
        first.word_tokenizer.word_tokenize("what is loaded before the time is taken")
        documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
        began = time.perf_counter()
        first.run(iter(documents))
        for bucket in range(config.num_buckets):
            MinhashDedupBuckets(signatures, duplicates, config=config).run(None, bucket, config.num_buckets)
        MinhashDedupCluster(duplicates, removed, config=config).run()
        kept = {int(document.id) for document in MinhashDedupFilter(removed).run(iter(documents))}
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "dropped": [n for n in range(len(texts)) if n not in kept]}))


if __name__ == "__main__":
    main()
