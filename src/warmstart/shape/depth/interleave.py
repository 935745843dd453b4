"""Each block again right behind itself."""

from __future__ import annotations

from warmstart.foundation.settings import Settings
from warmstart.shape.depth import depths
from warmstart.shape.maps import LayerMap


@depths.register(
    "interleave",
    title="Learning to Grow Pretrained Models for Efficient Transformer Training",
    arxiv="2303.00980",
    tags=("shrinks",),
)
def interleave(settings: Settings, old: int, new: int) -> LayerMap:
    """Block `i * L_old // L_new` at place i, so neighbours are copies of each other; compared there.

    With fewer blocks than there are, every k-th one stays. Not function preserving.
    """
    return LayerMap.of([layer * old // new for layer in range(new)])
