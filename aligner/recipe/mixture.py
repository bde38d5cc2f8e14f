"""How often the rows of each source come in an epoch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aligner.recipe.base import Spec


class MixtureSpec(Spec):
    """Shares of the sources in an epoch of a fixed number of rows.

    Every row of a source is read before one of them is read again, from one epoch to the next.
    """

    by: Literal["examples", "temperature", "share", "epochs"] = Field(
        "examples",
        description="examples: rates as the numbers of rows n (FLAN); temperature: as n^(1/temperature) (T5);"
        " share, epochs: as each source says",
    )
    rows: int | None = Field(
        None, gt=0, description="rows an epoch reads; as many as the sources have when left out"
    )
    temperature: float | None = Field(None, ge=1, description="1: as examples; the higher, the more equal")
    rate_cap: int | None = Field(
        None, gt=0, description="more rows than this give no higher rate (FLAN's mixing rate maximum, T5's K)"
    )
    each: Literal["file", "source"] | None = Field(
        None, description="what has one rate; each file when left out, as for cap"
    )
    share_of: Literal["rows", "tokens"] = Field(
        "rows", description="what the shares are of; tokens: by the mean length of a source's rows"
    )

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        faults = []
        if (self.temperature is None) == (self.by == "temperature"):
            faults.append("temperature: goes with by: temperature, and with nothing else")
        rates = self.by in ("examples", "temperature")
        idle = [key for key in ("rate_cap", "each") if getattr(self, key) is not None and not rates]
        faults += [f"{key}: for by: examples or temperature alone; leave it out" for key in idle]
        if self.by == "epochs" and self.rows is not None:
            faults.append("rows: follow from the epochs of the sources; leave it out")
        if self.by == "epochs" and self.share_of == "tokens":
            faults.append("share_of: there are no shares; leave it out")
        if faults:
            raise ValueError("; ".join(faults))
        return self
