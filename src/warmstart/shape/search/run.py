"""A search from its beginning to its end, or from where it was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from warmstart.foundation.progress import progress
from warmstart.shape.search.bins import EVERYTHING, Bin
from warmstart.shape.search.evaluations import Evaluation, Evaluations, points_of, summary
from warmstart.shape.search.pareto import fronts
from warmstart.shape.search.settings import SearchSettings
from warmstart.shape.search.space import Sizes
from warmstart.shape.search.subnetworks import Networks
from warmstart.shape.search.ways import SearchContext, Spent, searches


@dataclass(frozen=True)
class Searched:
    """What was found in one bin.

    Attributes:
        bin: Parameter counts.
        asked: Its evaluations, in order.
    """

    bin: Bin
    asked: dict[Sizes, Evaluation]

    @property
    def best(self) -> Sizes:
        """The sub-network with the lowest loss; of equal ones the smaller."""
        return min(self.asked, key=lambda sizes: (self.asked[sizes].loss, self.asked[sizes].parameters))


def search(
    networks: Networks, settings: SearchSettings, bins: Sequence[Bin] = (), *, state: Path | None = None
) -> list[Searched]:
    """Search every bin, each with a generator and a budget of its own.

    Args:
        networks: Cuts and measures sub-networks.
        settings: Way, budget and seed.
        bins: Parameter counts; all that the space has by default.
        state: File that keeps what was measured: a search that was interrupted and is run again with the same
            settings ends as if it had not been.

    Raises:
        UserError: A bin without a sub-network.
    """
    known = Evaluations(networks.measure, state)
    return [
        _one(networks, settings, number, each, known) for number, each in enumerate(bins or (EVERYTHING,))
    ]


def _one(
    networks: Networks, settings: SearchSettings, number: int, within: Bin, known: Evaluations
) -> Searched:
    way, own = searches.choose(settings.search, where="search")
    rng = np.random.default_rng([settings.seed, number])
    context = SearchContext(networks.space, within, rng, settings.evaluations, known, networks.judge.worst)
    unit = networks.judge.unit
    words = "sub-networks" if within == EVERYTHING else f"sub-networks of {within}"
    with progress(words, settings.evaluations) as bar:

        def measure(sizes: Sizes) -> Evaluation:
            one = known(sizes)
            bar.update(len(context.asked) + 1, f"{one.parameters:,} parameters  {one.loss:.3f} {unit}")
            return one

        context.measure = measure
        with suppress(Spent):
            way.target(own, context)
    return Searched(within, context.asked)


def front_of(networks: Networks, found: Sequence[Searched]) -> list[Sizes]:
    """The sub-networks that no other one dominates, in the order in which they were found."""
    every = {sizes: one for each in found for sizes, one in each.asked.items()}
    best = fronts(points_of(list(every.values()), networks.whole, networks.judge.worst))[0]
    return [sizes for number, sizes in enumerate(every) if number in set(best.tolist())]


def report(networks: Networks, found: Sequence[Searched], chosen: Sizes | None = None) -> dict[str, Any]:
    """What `search.json` holds: every evaluation, the Pareto front, and what the search cost.

    Args:
        networks: What was searched.
        found: Bin by bin.
        chosen: The sub-network that became the checkpoint.
    """
    every = {sizes: one for each in found for sizes, one in each.asked.items()}
    whole = networks.whole
    ends = [
        {"low": each.bin.low, "high": each.bin.high if each.bin != EVERYTHING else whole} for each in found
    ]
    return {
        "parameters of the source": whole,
        "combinations": networks.space.count,
        "bins": [
            end | {"evaluations": len(each.asked), "best": each.asked[each.best].model_dump()}
            for end, each in zip(ends, found, strict=True)
        ],
        "chosen": every[chosen].model_dump() if chosen is not None else None,
        "loss": networks.judge.unit,
        **summary(list(every.values()), whole, networks.judge.worst),
        "cost": cost(networks, every),
        "evaluations": [one.model_dump() for one in every.values()],
    }


def cost(networks: Networks, every: dict[Sizes, Evaluation]) -> dict[str, float]:
    """Tokens read and seconds spent: on all evaluations, and on judging the parts."""
    read = sum(batch["input_ids"].numel() for batch in networks.calibration.batches)
    return {
        "evaluation tokens": sum(one.tokens for one in every.values()),
        "evaluation seconds": round(sum(one.seconds for one in every.values()), 2),
        "calibration tokens": read if networks.known.seconds else 0,
        "calibration seconds": round(networks.known.seconds, 2),
    }
