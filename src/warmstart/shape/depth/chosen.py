"""Blocks by number."""

from __future__ import annotations

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.depth import depths
from warmstart.shape.maps import LayerMap


class ChosenSettings(Settings):
    """Which blocks."""

    layers: list[int] = Field(min_length=1)
    """Old numbers of the new blocks, in order, from 0, such as `[0, 1, 2, 6, 7]`."""


@depths.register("chosen", settings=ChosenSettings, title="Blocks by number", tags=("shrinks",))
def chosen(settings: ChosenSettings, old: int, new: int) -> LayerMap:
    """New block i is the old block `layers[i]`; a block may come twice, and in any order.

    Raises:
        UserError: Another number of blocks than the new model has, or a block that does not exist.
    """
    if len(settings.layers) != new:
        raise UserError(f"{len(settings.layers)} layers are chosen for {new}", where="depth")
    strange = [layer for layer in settings.layers if not 0 <= layer < old]
    if strange:
        raise UserError(f"there is no layer {strange[0]}", where="depth", fix=f"they are 0 to {old - 1}")
    return LayerMap.of(settings.layers)
