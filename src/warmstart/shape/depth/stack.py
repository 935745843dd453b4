"""The whole stack again on top of itself."""

from __future__ import annotations

from warmstart.foundation.settings import Settings
from warmstart.shape.depth import depths
from warmstart.shape.maps import LayerMap


@depths.register(
    "stack",
    title="Efficient Training of BERT by Progressively Stacking",
)
def stack(settings: Settings, old: int, new: int) -> LayerMap:
    """Blocks 0 … L-1 as often as they fit, and the top blocks for the remainder (as in bert2BERT).

    Not function preserving.
    """
    rest = new % old
    return LayerMap.of([*range(old)] * (new // old) + [*range(old - rest, old)])
