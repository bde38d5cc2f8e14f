"""The rules every part of a recipe obeys: closed, frozen, strictly typed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A part of a recipe. Unknown keys are errors, values never change, text is never taken for a number."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False
    )
