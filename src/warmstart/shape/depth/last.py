"""The last blocks: the control of an ablation."""

from __future__ import annotations

from warmstart.foundation.settings import Settings
from warmstart.shape.depth import depths, fewer
from warmstart.shape.maps import LayerMap


@depths.register("last", title="The last blocks", tags=("shrinks",))
def last(settings: Settings, old: int, new: int) -> LayerMap:
    """Keep blocks `L-L' … L-1`. They expect a stream that the removed ones no longer prepare.

    Raises:
        UserError: More blocks than there are.
    """
    fewer("last", old, new)
    return LayerMap.of(range(old - new, old))
