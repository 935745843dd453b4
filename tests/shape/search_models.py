"""Spaces of tiny models, and searches in them whose losses are given by a formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from anatomy_models import build

from warmstart.anatomy import anatomy_of_model
from warmstart.shape.search.bins import EVERYTHING, Bin
from warmstart.shape.search.evaluations import Evaluation
from warmstart.shape.search.space import Range, Sizes, Space
from warmstart.shape.search.ways import SearchContext, Spent, searches

SPACE = {
    "hidden_size": Range(min=6, step=6),
    "intermediate_size": Range(min=4, step=4),
    "num_hidden_layers": [1, 2],
}


def space_of(variant: str = "gpt_neox", choices: dict[str, Any] | None = None) -> Space:
    return Space(anatomy_of_model(build(variant)), choices or SPACE)


def loss_of(space: Space) -> Callable[[Sizes], Evaluation]:
    """A loss with one minimum per size of the model: deep ones are better than wide ones."""

    def measure(sizes: Sizes) -> Evaluation:
        hidden, units, layers = sizes
        loss = 6 - 0.05 * hidden - 0.04 * units - 0.9 * layers + 0.01 * (hidden * 7 + units * 3) % 0.05
        return Evaluation(sizes=space.named(sizes), parameters=space.parameters(sizes) or 0, loss=loss)

    return measure


def searched(
    way: str, space: Space, *, within: Bin = EVERYTHING, budget: int = 30, seed: int = 0, **settings: Any
) -> tuple[SearchContext, list[Sizes]]:
    """The context after a search, and every question in order."""
    entry, own = searches.choose({"name": way, **settings})
    questions: list[Sizes] = []
    context = SearchContext(space, within, np.random.default_rng(seed), budget, loss_of(space))
    plain = context.evaluate

    def evaluate(sizes: Sizes) -> Evaluation:
        questions.append(sizes)
        return plain(sizes)

    context.evaluate = evaluate  # type: ignore[method-assign]
    try:
        entry.target(own, context)
    except Spent:
        return context, questions
    raise AssertionError("a search ends by its budget")


def counts(space: Space, found: Sequence[Sizes]) -> list[int]:
    return [space.parameters(sizes) or 0 for sizes in found]
