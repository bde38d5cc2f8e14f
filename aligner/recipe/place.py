"""Where rows lie: in files here, or in a data set on the Hub; and how much of them is read."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec

HUB = "hub:"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class PlaceSpec(Spec):
    """The rows of files, or of a split of a data set on the Hub; all of them, or the first ones of a stream."""

    path: str | list[str] = Field(
        description="file, folder or glob; several as a list; or hub:owner/name, a data set on the Hub"
    )
    split: str | None = Field(None, description="of a data set on the Hub; train when left out")
    config: str | None = Field(None, description="of a data set on the Hub that has several configurations")
    revision: str | None = Field(None, description="of a data set on the Hub: a commit, tag or branch")
    streaming: bool = Field(
        False, description="read rows one after the other and stop after take; the others are never fetched"
    )
    take: int | None = Field(None, gt=0, description="with streaming: rows that are read, the first ones")

    @property
    def hub_id(self) -> str | None:
        """owner/name of a data set on the Hub; None for files."""
        return (
            self.path.removeprefix(HUB) if isinstance(self.path, str) and self.path.startswith(HUB) else None
        )

    @model_validator(mode="after")
    def _hub_keys_go_with_an_id(self) -> Self:
        if isinstance(self.path, list) and (ids := [path for path in self.path if path.startswith(HUB)]):
            raise ValueError(
                f"path: {ids[0]} stands in a list; give every data set of the Hub a source of its own"
            )
        if self.hub_id is not None and not _HUB_ID.fullmatch(self.hub_id):
            raise ValueError(f'path: "{self.path}" is no id of a data set; write hub:owner/name')
        for key in ("split", "config", "revision"):
            if getattr(self, key) is not None and self.hub_id is None:
                raise ValueError(
                    f"{key}: for data sets on the Hub alone (path: hub:owner/name); leave it out"
                )
        return self

    @model_validator(mode="after")
    def _a_stream_has_an_end(self) -> Self:
        if self.streaming and self.take is None:
            raise ValueError(
                "streaming: a stream has no end that is known; say with take how many rows are read"
            )
        if self.take is not None and not self.streaming:
            raise ValueError("take: goes with streaming: true; cap draws rows at random from all of them")
        return self
