"""Evolution that stays inside its bin."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Literal

from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.shape.search.evaluations import Evaluation
from warmstart.shape.search.pareto import ranked
from warmstart.shape.search.space import Sizes
from warmstart.shape.search.ways import SearchContext, searches


class EvolutionSettings(Settings):
    """How many live, and who has children."""

    population_size: int = Field(default=10, ge=2)
    """Sub-networks that live at a time."""
    sample_size: int = Field(default=5, ge=1)
    """Of these so many are drawn, and the best of them is a parent."""
    crossover: float = Field(default=0.5, ge=0, le=1)
    """Probability that a child has two parents; else it is a parent with one size changed."""
    best: Literal["loss", "pareto"] = "loss"
    """Best is who has the lowest loss, or who is dominated least in loss and parameters."""


@searches.register(
    "evolution",
    settings=EvolutionSettings,
    title="Where to Begin: Efficient Pretraining via Subnetwork Selection and Distillation",
    arxiv="2510.07227",
)
def evolution(settings: EvolutionSettings, context: SearchContext) -> None:
    """Regularised evolution whose children are rejected outside of their bin of parameter counts.

    The population begins with random sub-networks of the bin. Then, again and again: the best of
    `sample_size` random members is a parent, its child differs in one size, or takes each size from one of
    two such parents; children outside the bin are drawn anew; the child replaces the oldest member (Real et
    al., Regularized Evolution for Image Classifier Architecture Search, arXiv 1802.01548).

    The fitness of the source is the perplexity of the extracted, untrained sub-network. Its released code
    (whittle) has no search inside bins; the defaults are those of its MO-REA (population 10, sample 5),
    which `best: pareto` is. How often the source crosses parents is not known.
    """
    living: deque[Sizes] = deque(maxlen=settings.population_size)
    for _ in range(settings.population_size):
        context.evaluate(first := context.draw())
        living.append(first)
    while True:
        crossing = bool(context.rng.random() < settings.crossover)
        child = context.child(partial(_child, settings, context, living, crossing))
        context.evaluate(child)
        living.append(child)


def _child(
    settings: EvolutionSettings, context: SearchContext, living: deque[Sizes], crossing: bool
) -> Sizes:
    one = _parent(settings, context, living)
    return context.crossed(one, _parent(settings, context, living)) if crossing else context.mutated(one)


def _parent(settings: EvolutionSettings, context: SearchContext, living: deque[Sizes]) -> Sizes:
    count = min(settings.sample_size, len(living))
    drawn = [living[i] for i in context.rng.choice(len(living), count, replace=False)]
    found = [context.asked[sizes] for sizes in drawn]
    return drawn[_best(settings, context, found)]


def _best(settings: EvolutionSettings, context: SearchContext, found: list[Evaluation]) -> int:
    if settings.best == "pareto":
        return int(ranked(context.points(found))[0])
    return min(range(len(found)), key=lambda i: found[i].loss)
