"""Attention scores that stay what they are where their scale changes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warmstart.shape.width import Widening, WidthContext


def keep_scores(context: WidthContext, result: Widening, *, spread: bool) -> None:
    """Factors on queries, for the `e^-1/2` of a head of another size, or for another layer number (GPT-2).

    Args:
        context: The surgery.
        result: Gets the factors.
        spread: Keep the spread of the scores, sums over fewer entries, and not the scores themselves.
    """
    old, new = context.old, context.new
    for stack, count in new.layers.items():
        for layer in range(count):
            origin = context.layers[stack].origin(layer) if stack in context.layers else layer
            ratio = old.score_scale(origin) / new.score_scale(layer)
            if spread:
                ratio *= math.sqrt(old.sizes["e"] / new.sizes["e"])
            if math.isclose(ratio, 1, rel_tol=1e-12):
                continue
            for name, place in new.queries(stack, layer).items():
                result.scale(name, ratio, place)
