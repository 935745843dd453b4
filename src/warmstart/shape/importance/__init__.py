"""Ways to say how much each entry of an axis matters, one file each.

A way is `score(settings, context) -> {group: (size,)}`: larger is more important.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from warmstart.anatomy import Anatomy, AxisGroup
from warmstart.foundation.registry import Registry
from warmstart.foundation.settings import Settings
from warmstart.shape.calibration import Calibrate
from warmstart.shape.reshape import Read


class ImportanceSettings(Settings):
    """What every way can be told."""

    reverse: bool = False
    """Keep what matters least: the control of an ablation."""


@dataclass(frozen=True)
class ImportanceContext:
    """What a way to score entries gets.

    Attributes:
        anatomy: The model.
        groups: The axis groups that are scored.
        read: Gives stored tensors by canonical name.
        names: Canonical names of what is stored.
        calibrate: Gives the model and its text to a way that says its name.
        rng: The only source of randomness.
    """

    anatomy: Anatomy
    groups: tuple[AxisGroup, ...]
    read: Read
    names: Collection[str]
    calibrate: Calibrate
    rng: np.random.Generator


Scores = dict[str, np.ndarray]
"""Name of an axis group to the importance of its entries, `(size,)`."""

Score = Callable[[Any, ImportanceContext], Scores]
importances: Registry[Score] = Registry("importance", "warmstart.shape.importance")
"""The tag `text` says that a way lets the model read text."""
