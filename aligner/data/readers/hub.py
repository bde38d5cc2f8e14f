"""A split of a data set on the Hub as records; the library `datasets` fetches it, keeps it and streams it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from aligner.data.readers.records import Record
from aligner.data.readers.tables import unpadded
from aligner.data.rows import Origin
from aligner.errors import DataError, Problem, nearest
from aligner.recipe.place import HUB, PlaceSpec

DEFAULT_SPLIT = "train"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubSplit:
    """The rows of a split in order; `identity` says which they are: id, configuration, split and commit."""

    name: str
    identity: str
    rows: Iterable[Mapping[str, object]]

    def records(self) -> Iterator[Record]:
        """The rows; `Origin.line` is a row's index from 1. Raises `DataError` where the stream breaks."""
        with _told(self.name):
            for number, row in enumerate(self.rows, start=1):
                yield Record(Origin(self.name, number), unpadded(row))


def open_split(spec: PlaceSpec) -> HubSplit:
    """The split that a source names, fetched where it is not here yet; a stream is fetched as it is read.

    `DataError` where the Hub is out of reach and the data set not in the cache of `datasets`, or where there is no such
    data set, configuration, revision or split.
    """
    from datasets import load_dataset_builder

    assert spec.hub_id is not None, "the source is of the Hub"
    split = spec.split or DEFAULT_SPLIT
    with _told(f"{HUB}{spec.hub_id}"):
        # a bare id would be a folder here, where there is one of that name
        builder = load_dataset_builder(f"hf://datasets/{spec.hub_id}", spec.config, revision=spec.revision)
        _check_commit(spec, builder.hash)
        if not spec.streaming:
            builder.download_and_prepare()
        splits = builder.as_streaming_dataset() if spec.streaming else builder.as_dataset()
    name = "/".join([f"{HUB}{spec.hub_id}", *([spec.config] if spec.config else []), split])
    if split not in splits:
        raise DataError(Problem(name, f'no split "{split}"', nearest(split, sorted(map(str, splits)))))
    identity = f"{spec.hub_id} {builder.config.name} {split} {builder.hash}"
    return HubSplit(name, identity, cast(Iterable[Mapping[str, object]], splits[split]))


def _check_commit(spec: PlaceSpec, found: str | None) -> None:
    """Without a network, `datasets` takes whatever it kept last, of whatever revision.

    Which commit a branch or a tag was at when the Hub was last asked is in the Hub client's own cache.
    """
    assert spec.hub_id is not None, "the source is of the Hub"
    revision = spec.revision or "main"
    wanted = revision if _COMMIT.fullmatch(revision) else _last_commit(spec.hub_id, revision)
    if wanted == found or (wanted is None and spec.revision is None):
        return
    named = f"revision {revision}" + (f" ({wanted})" if wanted and wanted != revision else "")
    what = f"{named} is not in the cache, which has {found}"
    raise DataError(Problem(f"{HUB}{spec.hub_id}", what, "run once with a network, or name the other"))


def _last_commit(hub_id: str, revision: str) -> str | None:
    """The commit of a branch or tag when the Hub was last asked for it; None where it never was."""
    from datasets import config

    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(config.HF_CACHE_HOME) / "hub")
    ref = cache.expanduser() / f"datasets--{hub_id.replace('/', '--')}" / "refs" / revision
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else None


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turns what the library says of a data set that cannot be read into one `DataError`."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from datasets.load import httpx  # whichever library of that kind the Hub's client takes

    try:
        yield
    except ConnectionError as error:
        what = "the Hub cannot be reached, and the data set is not in the cache of datasets (HF_HOME)"
        raise DataError(Problem(name, what, _near_id(name) or "check the network and the id")) from error
    except httpx.TransportError as error:
        what = f"the connection to the Hub broke ({type(error).__name__}: {error})"
        raise DataError(Problem(name, what, "check the network, and start again")) from error
    except DatasetNotFoundError as error:
        remedy = (
            _near_id(name) or "check the id and the revision and, for a private data set, `hf auth login`"
        )
        raise DataError(Problem(name, _first_line(error), remedy)) from error
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise DataError(Problem(name, _first_line(error), _near_config(error))) from error


def _first_line(error: Exception) -> str:
    return f"cannot be read: {(str(error).strip() or type(error).__name__).splitlines()[0]}"


def _near_id(name: str) -> str:
    """The nearest of the data sets that are in the cache, if any is near."""
    from datasets import config

    folders = Path(config.HF_DATASETS_CACHE).expanduser().glob("*___*")
    known, asked = {folder.name.replace("___", "/", 1) for folder in folders}, name.removeprefix(HUB)
    near = "" if asked in known else nearest(asked, sorted(known))  # a right id is not what is wrong
    return near if near.startswith("did you mean") else ""


def _near_config(error: Exception) -> str:
    """The configurations there are, where the library names them."""
    after = re.split("available", str(error), maxsplit=1, flags=re.IGNORECASE)[1:]
    names = re.findall(r"'([^']+)'", "".join(after).partition("]")[0])  # an example of a call may follow
    asked = re.search(r"[Cc]onfig '([^']+)'", str(error))
    if not names:
        return "look at the data set's page on the Hub"
    return f"config: {nearest(asked.group(1) if asked else '', names)}"
