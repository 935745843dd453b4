"""New blocks that add nothing."""

from __future__ import annotations

from warmstart.foundation.settings import Settings
from warmstart.shape.depth import depths
from warmstart.shape.maps import LayerMap


@depths.register(
    "identity",
    title="LLaMA Pro: Progressive LLaMA with Block Expansion",
    arxiv="2401.02415",
    tags=("exact",),
)
def identity(settings: Settings, old: int, new: int) -> LayerMap:
    """Spread new blocks evenly: each copies the block before it, with output projections that are zero.

    A pre-norm block `x + f(x)` is then the identity, so the model computes what it did, and learns from the
    first step: the gradient of a zero output projection is not zero. In a post-norm family (BERT) such a
    block still normalises, and the function changes.

    The source expands groups of equal size (8 blocks behind every 4 of 32); here any number is spread.
    """
    after = [(i + 1) * old // (new - old + 1) for i in range(new - old)] if new > old else []
    after = [max(1, place) for place in after]
    order: list[int] = []
    silent: list[int] = []
    for layer in range(old):
        order.append(layer)
        for _ in range(after.count(layer + 1)):
            silent.append(len(order))
            order.append(layer)
    return LayerMap.of(order, silent)
