"""Local search around the Pareto front."""

from __future__ import annotations

from functools import partial

from warmstart.foundation.settings import Settings
from warmstart.shape.search.pareto import fronts
from warmstart.shape.search.space import Sizes
from warmstart.shape.search.ways import SearchContext, searches


@searches.register(
    "local",
    settings=Settings,
    title="Structural Pruning of Pre-trained Language Models via Neural Architecture Search",
    arxiv="2405.02267",
)
def local(settings: Settings, context: SearchContext) -> None:
    """One size of a random member of the Pareto front (loss, parameters) is changed, again and again.

    Begins with the largest, the smallest and the middle sizes where they are in the bin, and with a random
    sub-network where none is.
    """
    values = context.space.values
    places = [[0] * len(values), [len(v) // 2 for v in values], [-1] * len(values)]
    for place in reversed(places):
        sizes: Sizes = tuple(v[i] for v, i in zip(values, place, strict=True))
        if context.allowed(sizes):
            context.evaluate(sizes)
    if not context.asked:
        context.evaluate(context.draw())
    while True:
        known = list(context.asked)
        found = list(context.asked.values())
        best = fronts(context.points(found))[0]
        chosen = known[best[context.rng.integers(len(best))]]
        context.evaluate(context.child(partial(context.mutated, chosen)))
