"""Options that the methods with projected gradients share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from warmstart.foundation.settings import Settings


class ProjectionSettings(Settings):
    """Options of a method that keeps moments of a projected gradient."""

    rank: int | None = Field(default=None, ge=1)
    """Dimensions that the shorter side of a matrix is projected to; at most all of them. Null takes a quarter
    of the shorter side, which in models without grouped queries is the papers' quarter of the hidden size."""
    update_proj_gap: int = Field(default=200, ge=1)
    """Updates between two projections. The moments stay as they are when the projection changes."""


class LimitedSettings(ProjectionSettings):
    """Options of a method with Fira's norm-growth limiter."""

    growth_limit: float | None = Field(default=1.01, ge=1)
    """What the limiter watches may be so many times as long as in the last update, and is shortened to that;
    null switches the limiter off."""
    limited: Literal["applied", "released"] = "applied"
    """What the limiter measures: lengths as they are applied, or, as the released codes do, lengths before
    Adam's bias correction, which differ in the first `1 / (1 - adam_beta2)` updates (`released`)."""
