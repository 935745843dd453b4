"""How a model learns: one loop on accelerate, with schedules, exact resume and measured points.

`train` turns a model, packed blocks and `TrainSettings` into a trained model and its curve of bits per byte
over tokens, seconds and FLOPs. Everything it writes lies in one run folder: `events.jsonl` (measurements),
`checkpoints/step-N` (whole states, from which a killed run continues bit for bit) and tracker files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warmstart.training.interrupt import Interrupted
from warmstart.training.settings import TrainSettings

if TYPE_CHECKING:
    from warmstart.training.loop import train
    from warmstart.training.result import TrainResult

__all__ = ["Interrupted", "TrainResult", "TrainSettings", "train"]


def __getattr__(name: str) -> Any:
    if name in ("train", "TrainResult"):  # torch is loaded only when training begins
        from warmstart.training import loop

        return getattr(loop, name)
    raise AttributeError(name)
