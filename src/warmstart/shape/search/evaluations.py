"""What was measured in a search: kept on disk at once, and looked up when it is asked again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from warmstart.foundation.files import write_atomic
from warmstart.shape.search.pareto import fronts, hypervolume
from warmstart.shape.search.space import Sizes


class Evaluation(BaseModel):
    """One sub-network as it is, untrained."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sizes: dict[str, int]
    """Its sizes by configuration keys."""
    parameters: int
    """What its checkpoint stores."""
    loss: float
    """On held-out text, as the search judges."""
    tokens: int = 0
    """Tokens predicted for it."""
    seconds: float = 0.0
    """Wall-clock time of building and measuring it."""


class Evaluations:
    """All evaluations of a search, in the order in which they were first asked for.

    A search is a function of its seed and of what is measured. So nothing else is kept: one that was
    interrupted is run again from its beginning, and what was measured before comes out of the file, which
    leads to the same next question.

    Args:
        measure: Builds and measures a sub-network.
        file: Where evaluations are kept; nowhere by default.
    """

    def __init__(self, measure: Callable[[Sizes], Evaluation], file: Path | None = None) -> None:
        self._measure, self._file = measure, file
        self._stored: dict[Sizes, Evaluation] = {}
        self.found: dict[Sizes, Evaluation] = {}
        if file is not None and file.is_file():
            for item in json.loads(file.read_text(encoding="utf-8")):
                self._stored[tuple(item["key"])] = Evaluation(**item["evaluation"])

    def __call__(self, sizes: Sizes) -> Evaluation:
        """The evaluation of a sub-network, measured unless it is known."""
        if sizes not in self.found:
            known = sizes in self._stored
            self.found[sizes] = self._stored[sizes] if known else self._measure(sizes)
            if not known:
                self._stored[sizes] = self.found[sizes]
                self._keep()
        return self.found[sizes]

    def _keep(self) -> None:
        if self._file is not None:
            kept = [
                {"key": list(sizes), "evaluation": found.model_dump()}
                for sizes, found in self._stored.items()
            ]
            write_atomic(self._file, json.dumps(kept))


def points_of(found: list[Evaluation], whole: int, worst: float) -> np.ndarray:
    """What is to be small, `(n, 2)`: loss as a share of the worst, parameters as a share of the source's."""
    return np.array([[one.loss / worst, one.parameters / whole] for one in found], dtype=float).reshape(-1, 2)


def summary(found: list[Evaluation], whole: int, worst: float) -> dict[str, Any]:
    """The Pareto front of loss and parameters, smallest first, and its hypervolume in [0, 1].

    Args:
        found: All evaluations.
        whole: Parameters of the source.
        worst: Loss of someone who knows nothing.
    """
    points = points_of(found, whole, worst)
    best = [found[i] for front in fronts(points)[:1] for i in front]
    front = sorted(best, key=lambda one: one.parameters)
    return {
        "front": [one.model_dump() for one in front],
        "hypervolume": hypervolume(points, np.ones(2)),
    }
