"""Random sub-networks of every size alike."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.search.bins import linear_bins
from warmstart.shape.search.ways import ENUMERATED, SearchContext, searches


class StratifiedSettings(Settings):
    """How finely sizes are told apart."""

    strata: int = Field(default=20, ge=1)
    """Parts of equal width into which the range of parameter counts is divided."""


@searches.register(
    "stratified",
    settings=StratifiedSettings,
    title="Where to Begin: Efficient Pretraining via Subnetwork Selection and Distillation",
    arxiv="2510.07227",
)
def stratified(settings: StratifiedSettings, context: SearchContext) -> None:
    """Uniform draws from linear bins of the parameter count, one after another.

    Drawing sizes uniformly gives mostly models of middle size. Strata that hold no sub-network are passed
    over. The range is that of the sizes inside the bin, of a large space that of many draws.
    """
    if context.space.count <= ENUMERATED:
        inside = context.members(context.bin)
    else:
        inside = [context.draw() for _ in range(50 * settings.strata)]
    counts = [int(context.space.parameters(sizes) or 0) for sizes in inside] or [0]
    parts = linear_bins(min(counts), max(counts), settings.strata)
    held = [part for part in parts if any(count in part for count in counts)]
    if not inside or not held:
        context.draw()  # says that the bin is empty
        raise UserError("the bin holds no sub-network", where="search")
    for number in range(10**9):
        part = held[number % len(held)]
        low, high = np.maximum(part.low, context.bin.low), np.minimum(part.high, context.bin.high)
        context.evaluate(context.draw(type(part)(float(low), float(high))))
