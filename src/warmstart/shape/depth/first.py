"""The first blocks."""

from __future__ import annotations

from warmstart.foundation.settings import Settings
from warmstart.shape.depth import depths, fewer
from warmstart.shape.maps import LayerMap


@depths.register(
    "first",
    title="Well-Read Students Learn Better: On the Importance of Pre-training Compact Models",
    arxiv="1908.08962",
    tags=("shrinks",),
)
def first(settings: Settings, old: int, new: int) -> LayerMap:
    """Keep blocks `0 … L'-1`: the truncated teacher that the source compares its students with.

    Raises:
        UserError: More blocks than there are.
    """
    fewer("first", old, new)
    return LayerMap.of(range(new))
