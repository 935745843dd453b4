"""Loss curves: what a run measured on held-out text as it went on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class CurvePoint(BaseModel):
    """One evaluation during training."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    step: int
    """Optimizer steps taken before this measurement."""
    tokens: int
    """Training tokens seen."""
    seconds: float
    """Training seconds, evaluation time excluded."""
    flops: float
    """Training floating-point operations."""
    bpb: float
    """Bits per UTF-8 byte of the held-out text."""
    train_loss: float | None = None
    """Mean training loss since the previous point, nats per token; None before the first step."""


class Curve(BaseModel):
    """All evaluations of one run, in order of steps."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    seed: int = 0
    """Seed of the run; arms are compared seed by seed."""
    points: list[CurvePoint]
    """Measurements, the first before any training."""

    @property
    def final(self) -> float:
        """Bits per byte at the last point."""
        return self.points[-1].bpb
