"""Data sets as the library `datasets` keeps those that it fetched from the Hub, for tests without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetInfo, Features, SplitDict, SplitInfo
from datasets.arrow_writer import ArrowWriter

COMMIT = "1" * 40


def keep_data_set(
    cache: Path,
    hub_id: str,
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    config: str = "default",
    commit: str = COMMIT,
) -> None:
    """Put a data set into the cache as if it had been fetched at this commit."""
    owner, name = hub_id.split("/")
    folder = cache / f"{owner}___{name}" / config / "0.0.0" / commit
    folder.mkdir(parents=True)
    features: Features = Dataset.from_list(list(next(iter(splits.values())))).features
    infos = SplitDict(dataset_name=name)
    for split, rows in splits.items():
        with ArrowWriter(path=str(folder / f"{name}-{split}.arrow"), features=features) as writer:
            for row in rows:
                writer.write(row)
            writer.finalize()
        infos.add(SplitInfo(split, num_examples=len(rows), dataset_name=name))
    info = DatasetInfo(
        features=features, splits=infos, dataset_name=name, config_name=config, version="0.0.0"
    )
    info.write_to_directory(str(folder))
