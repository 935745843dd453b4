"""Ways to make a model wider, one file each.

A way is `widen(context) -> Widening`: a map for every axis group that grows, and what must change besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from warmstart.anatomy import Anatomy
from warmstart.foundation.registry import Registry
from warmstart.shape.groups import Resized
from warmstart.shape.maps import AxisMap, LayerMap
from warmstart.shape.reshape import Reshape
from warmstart.shape.target import with_config


@dataclass(frozen=True)
class WidthContext:
    """What a way to widen gets.

    Attributes:
        old: The model that exists.
        new: The model to make.
        layers: Where the layers of its stacks come from; stacks that are not named keep theirs.
        resized: The groups that grow.
        rng: The only source of randomness.
    """

    old: Anatomy
    new: Anatomy
    layers: Mapping[str, LayerMap]
    resized: tuple[Resized, ...]
    rng: np.random.Generator


@dataclass
class Widening:
    """What a way to widen answers.

    Attributes:
        maps: Name of a group of the new model to its map.
        factors: Name of a tensor of the new model to factors: on all of it (None), or on one place of a fused
            q, k, v dimension.
        split: Norms whose gains and biases are split among copies, in place of the head that reads them.
        config: Configuration values that change besides the sizes.
        inexact: Why the new model does not compute what the old one did; empty where it does.
    """

    maps: dict[str, AxisMap] = field(default_factory=dict)
    factors: dict[str, dict[int | None, float]] = field(default_factory=dict)
    split: set[str] = field(default_factory=set)
    config: dict[str, Any] = field(default_factory=dict)
    inexact: list[str] = field(default_factory=list)

    def scale(self, name: str, factor: float, place: int | None = None) -> None:
        """Multiply the factor on a tensor, or on one place of a fused dimension."""
        places = self.factors.setdefault(name, {})
        places[place] = places.get(place, 1.0) * factor

    def reshape(self, context: WidthContext, *, seed: int, inexact: Sequence[str]) -> Reshape:
        """The surgery with these maps, and the layers of the context."""
        return Reshape(
            old=context.old,
            new=with_config(context.new, self.config),
            maps=self.maps,
            layers=context.layers,
            factors=self.factors,
            split=frozenset(self.split),
            seed=seed,
            inexact=tuple(inexact),
        )


Widen = Callable[[Any, WidthContext], Widening]
widths: Registry[Widen] = Registry("width", "warmstart.shape.width")
