"""NSGA-II: a population that spreads along the Pareto front."""

from __future__ import annotations

from functools import partial

import numpy as np
from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.shape.search.pareto import ranked
from warmstart.shape.search.space import Sizes
from warmstart.shape.search.ways import SearchContext, searches


class Nsga2Settings(Settings):
    """How many live, and how children differ."""

    population_size: int = Field(default=10, ge=2)
    """Sub-networks that live at a time, and children per generation."""
    crossover: float = Field(default=0.9, ge=0, le=1)
    """Probability that a child takes its sizes from two parents; else it is a copy of one."""
    mutation: float | None = Field(default=None, ge=0, le=1)
    """Probability that a child then gets another value of one size; certain without it for copies, and one by
    the number of sizes for others."""


@searches.register(
    "nsga2",
    settings=Nsga2Settings,
    title="A fast and elitist multiobjective genetic algorithm: NSGA-II (10.1109/4235.996017)",
)
def nsga2(settings: Nsga2Settings, context: SearchContext) -> None:
    """Generations of tournaments; parents and children together are ranked, and the better half lives on.

    Ranked by non-dominated front in (loss, parameters), inside a front by crowding distance. A parent is the
    better ranked of two random members. Sizes are choices and not numbers: crossover takes each key from one
    of two parents, mutation draws another value. Children outside the bin are drawn anew; one that lives
    already is not taken twice into the next generation.
    """
    living = [context.draw() for _ in range(settings.population_size)]
    for sizes in living:
        context.evaluate(sizes)
    while True:
        living = _sorted(context, living)
        children = [
            context.child(partial(_made, settings, context, living)) for _ in range(settings.population_size)
        ]
        for sizes in children:
            context.evaluate(sizes)
        living = _sorted(context, [*living, *children])[: settings.population_size]


def _sorted(context: SearchContext, members: list[Sizes]) -> list[Sizes]:
    """Each once, best first."""
    members = list(dict.fromkeys(members))
    found = [context.asked[sizes] for sizes in members]
    order = ranked(context.points(found))
    return [members[i] for i in order]


def _made(settings: Nsga2Settings, context: SearchContext, living: list[Sizes]) -> Sizes:
    """A child of members in order of their rank."""
    rng = context.rng
    one, other = (living[int(np.min(rng.integers(len(living), size=2)))] for _ in range(2))
    crossing = rng.random() < settings.crossover
    usual = 1 / len(one) if crossing else 1.0
    child = context.crossed(one, other) if crossing else one
    rate = usual if settings.mutation is None else settings.mutation
    return context.mutated(child) if rng.random() < rate else child
