"""Ways to remake linear maps of other parameters, one file each.

A way is `wrap(settings, context) -> {name: module}`: for every chosen map the one that takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warmstart.foundation.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import nn

    from warmstart.checkpoint.forms._wrapped import Wrapped


@dataclass(frozen=True)
class Place:
    """A linear map that was chosen.

    Attributes:
        name: Its module in the model.
        module: The module.
        kind: Which matrix of a block it is: the template of its weight in the family's table.
        layer: Index of its block.
        layers: Number of blocks of its stack.
        transposed: Whether the weight is stored as (inputs, outputs).
    """

    name: str
    module: nn.Module
    kind: str
    layer: int
    layers: int
    transposed: bool

    def matrix(self) -> torch.Tensor:
        """Its matrix `(outputs, inputs)` in float64, a copy."""
        import torch

        weight: Any = self.module.weight
        found = (weight.T if self.transposed else weight).detach().double()
        return found.clone(memory_format=torch.contiguous_format)

    @property
    def dtype(self) -> torch.dtype:
        """Type of its weight."""
        weight: Any = self.module.weight
        dtype: torch.dtype = weight.dtype
        return dtype


@dataclass(frozen=True)
class WrapContext:
    """What a way to wrap gets.

    Attributes:
        places: The chosen maps, in the order of the model.
        generator: The only source of randomness.
    """

    places: tuple[Place, ...]
    generator: torch.Generator

    def kinds(self) -> dict[str, list[Place]]:
        """The maps of each kind, by layer."""
        found: dict[str, list[Place]] = {}
        for place in self.places:
            found.setdefault(place.kind, []).append(place)
        return {kind: sorted(places, key=lambda place: place.layer) for kind, places in found.items()}


Wrap = Callable[[Any, WrapContext], "Mapping[str, Wrapped]"]
wraps: Registry[Wrap] = Registry("wrap", "warmstart.shape.wrap")
