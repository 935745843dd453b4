"""Sub-networks drawn at random: the baseline of every search."""

from __future__ import annotations

from warmstart.foundation.settings import Settings
from warmstart.shape.search.ways import SearchContext, searches


@searches.register("random", settings=Settings, title="Random search")
def random(settings: Settings, context: SearchContext) -> None:
    """Uniform draws from the sizes inside the bin."""
    while True:
        context.evaluate(context.draw())
