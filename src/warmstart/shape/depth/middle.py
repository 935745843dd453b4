"""The first and the last blocks; what goes, goes from the middle."""

from __future__ import annotations

from warmstart.foundation.settings import Settings
from warmstart.shape.depth import depths, fewer
from warmstart.shape.maps import LayerMap


@depths.register(
    "middle",
    title="Weight subcloning: direct initialization of transformers using larger pretrained ones",
    arxiv="2312.09299",
    tags=("shrinks",),
)
def middle(settings: Settings, old: int, new: int) -> LayerMap:
    """Keep blocks `0 … ceil(L'/2)-1` and the `floor(L'/2)` last ones.

    Blocks in the middle change the residual stream least; the first and the last ones translate between it
    and the vocabulary.

    Raises:
        UserError: More blocks than there are.
    """
    fewer("middle", old, new)
    return LayerMap.of([*range(new - new // 2), *range(old - new // 2, old)])
