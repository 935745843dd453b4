"""What a training run gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from warmstart.evaluation.curves import Curve


@dataclass
class TrainResult:
    """What a run measured.

    Attributes:
        curve: Held-out measurements; empty without an `evaluate` function.
        tokens: Training tokens seen.
        seconds: Training seconds, without evaluation and saving.
        checkpoint: Newest checkpoint of the run.
        interrupted: Whether the run was stopped before its budget was used (see `Interrupted.result`).
        steps: Optimizer steps taken.
    """

    curve: Curve
    tokens: int
    seconds: float
    checkpoint: Path | None
    interrupted: bool = False
    steps: int = 0
