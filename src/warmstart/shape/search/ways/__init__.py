"""Ways to look for good sub-networks, one file each.

A way is `look(settings, context)`: it asks `context.evaluate` until that raises `Spent`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.foundation.registry import Registry
from warmstart.shape.search.bins import Bin
from warmstart.shape.search.evaluations import Evaluation, points_of
from warmstart.shape.search.space import Choices, Sizes

ENUMERATED = 512
"""Spaces up to this many combinations are listed; of larger ones sizes are drawn until they fit."""
DRAWS = 5000
"""Draws after which a bin of such a space counts as empty."""
REPEATS = 50
"""A search ends after this many questions per evaluation, most of which it has asked before."""


class Spent(Exception):
    """The budget is used up, or nothing new is asked any more."""


@dataclass
class SearchContext:
    """What a way to search gets.

    Attributes:
        space: All sizes.
        bin: Parameter counts that sub-networks must have.
        rng: The only source of randomness.
        budget: How many different sub-networks may be evaluated.
        measure: Evaluates one.
        worst: Loss of someone who knows nothing.
        asked: Everything evaluated so far, in order.
    """

    space: Choices
    bin: Bin
    rng: np.random.Generator
    budget: int
    measure: Callable[[Sizes], Evaluation]
    worst: float = 1.0
    asked: dict[Sizes, Evaluation] = field(default_factory=dict)
    _questions: int = 0
    _members: dict[Bin, list[Sizes]] = field(default_factory=dict)

    def evaluate(self, sizes: Sizes) -> Evaluation:
        """What a sub-network is worth.

        Raises:
            Spent: It is a new one and the budget is used up, or the search goes round in circles.
        """
        if not self.allowed(sizes):
            raise ValueError(f"{sizes} is not in the bin")
        self._questions += 1
        new = sizes not in self.asked
        if (new and len(self.asked) >= self.budget) or self._questions > REPEATS * self.budget:
            raise Spent
        if new:
            self.asked[sizes] = self.measure(sizes)
        return self.asked[sizes]

    def points(self, found: list[Evaluation]) -> np.ndarray:
        """What is to be small, `(n, 2)`: loss and parameters, the latter as shares of the largest of them."""
        return points_of(found, max(one.parameters for one in found), self.worst)

    def allowed(self, sizes: Sizes, within: Bin | None = None) -> bool:
        """Whether the family can have these sizes, and their parameters are in the bin."""
        return self.space.parameters(sizes) in (within or self.bin)

    def members(self, within: Bin) -> list[Sizes]:
        """All sizes in a bin; only for small spaces."""
        if within not in self._members:
            self._members[within] = [sizes for sizes in self.space if self.allowed(sizes, within)]
        return self._members[within]

    def draw(self, within: Bin | None = None) -> Sizes:
        """Sizes drawn uniformly from those of the bin.

        Raises:
            UserError: There are none.
        """
        chosen = within or self.bin
        if self.space.count <= ENUMERATED:
            if members := self.members(chosen):
                return members[self.rng.integers(len(members))]
        else:
            for _ in range(DRAWS):
                if self.allowed(sizes := self.space.draw(self.rng), chosen):
                    return sizes
        raise UserError(
            f"no sub-network of the space has {chosen}", where="search", fix=f"the space has {self._extent()}"
        )

    def child(self, make: Callable[[], Sizes], tries: int = 100) -> Sizes:
        """What `make` draws, again and again until it is in the bin; a fresh draw if it never is."""
        for _ in range(tries):
            if self.allowed(sizes := make()):
                return sizes
        return self.draw()

    def mutated(self, sizes: Sizes) -> Sizes:
        """The same with another value of one key."""
        several = [i for i, values in enumerate(self.space.values) if len(values) > 1]
        if not several:
            return sizes
        place = several[self.rng.integers(len(several))]
        others = [value for value in self.space.values[place] if value != sizes[place]]
        value = others[self.rng.integers(len(others))]
        return (*sizes[:place], value, *sizes[place + 1 :])

    def crossed(self, one: Sizes, other: Sizes) -> Sizes:
        """Each key from one of two parents."""
        heads = self.rng.random(len(one)) < 0.5
        return tuple(a if first else b for a, b, first in zip(one, other, heads, strict=True))

    def _extent(self) -> str:
        ends = [tuple(values[place] for values in self.space.values) for place in (0, -1)]
        sample = [*ends, *(self.space.draw(self.rng) for _ in range(200))]
        if self.space.count <= ENUMERATED:
            sample = list(self.space)
        counts = [count for sizes in sample if (count := self.space.parameters(sizes)) is not None]
        return f"{min(counts):,} to {max(counts):,}" if counts else "no size that the family can have"


Look = Callable[[Any, SearchContext], None]
searches: Registry[Look] = Registry("search", "warmstart.shape.search.ways")
