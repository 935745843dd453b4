"""Without the blocks that change their input least."""

from __future__ import annotations

import numpy as np

from warmstart.foundation.settings import Settings
from warmstart.shape.depth import depths, fewer
from warmstart.shape.maps import LayerMap


@depths.register(
    "cosine",
    title="ShortGPT: Layers in Large Language Models are More Redundant Than You Expect",
    arxiv="2403.03853",
    tags=("shrinks", "text"),
)
def cosine(settings: Settings, old: int, new: int, similarity: np.ndarray | None = None) -> LayerMap:
    """Remove the `L - L'` blocks with the highest mean cosine between input and output.

    All cosines are measured in the whole model, as in the source; of equal ones the later block goes. See
    [`block_similarity`][warmstart.shape.similarity.block_similarity]; Yi chooses the blocks that it repeats
    by the same number.

    Args:
        settings: None.
        old: Number of blocks.
        new: Number of blocks to keep.
        similarity: `(old,)` mean cosines.

    Raises:
        UserError: More blocks than there are.
    """
    fewer("cosine", old, new)
    order = np.argsort(np.asarray(similarity), kind="stable")
    return LayerMap.of(np.sort(order[:new]).tolist())
