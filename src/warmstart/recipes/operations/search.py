"""Step type `search`: the best sub-network of a size, found by measuring many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.recipes.searching import SearchingStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from warmstart.shape.search.run import Searched


class SearchStep(SearchingStep):
    """Search the sub-networks of a model for the best of a size, and cut it out; nothing is trained."""

    bins: list[tuple[float, float]] = Field(min_length=1)
    """Parameter counts, lowest and highest of each bin; shares of the source's where both are at most 1."""
    chosen: int = Field(default=1, ge=1)
    """Number of the bin, counted from 1, whose best sub-network becomes the checkpoint."""
    keep_bins: bool = False
    """Also leave the best of each other bin, in folders `bin-1`, `bin-2`, … inside."""
    export: Literal["uniform", "per-layer", "masked"] = "uniform"
    """What a sub-network of masks becomes: a smaller model, where all layers are alike and the family can
    have it (`uniform`; others are not searched), one whose layers have their own sizes, which opens with this
    library (`per-layer`), or one of the old sizes with zeros in the place of what is masked (`masked`)."""
    max_shard_size: str = "5GB"
    """Largest file of a new checkpoint."""


@operations.register("search", settings=SearchStep)
def search_step(settings: SearchStep, folder: Path, runner: Runner) -> None:
    """Search the sub-networks of a checkpoint for those with the lowest held-out loss, bin by bin.

    The artifact is the best sub-network as a checkpoint, and `search.json`: all evaluations, the Pareto front
    of loss and parameters, and the tokens and seconds that it cost. What was measured is kept while
    the step works; interrupted, it goes on to the same end.
    """
    from warmstart.checkpoint import resolve
    from warmstart.foundation.errors import UserError
    from warmstart.recipes.searching import open_networks
    from warmstart.shape.search.bins import bins_of
    from warmstart.shape.search.run import report, search

    if settings.chosen > len(settings.bins):
        raise UserError(
            f"there is no bin {settings.chosen}",
            where="search",
            fix=f"choose one from 1 to {len(settings.bins)}",
        )
    source = resolve(settings.source, trust_remote_code=settings.trust_remote_code)
    networks = open_networks(settings, source)
    bins = bins_of(settings.bins, networks.whole)
    found = search(networks, settings, bins, state=folder / "evaluations.json")
    text = report(networks, found, found[settings.chosen - 1].best)
    wanted = [settings.chosen - 1, *(i for i in range(len(found)) if i != settings.chosen - 1)]
    for number in wanted if settings.keep_bins else wanted[:1]:
        first = number == settings.chosen - 1
        networks.export(
            found[number].best,
            folder / "output" if first else folder / "output" / f"bin-{number + 1}",
            settings=settings,
            measured=_measured(found, number, text),
        )
    (folder / "output" / "search.json").write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


def _measured(found: Sequence[Searched], number: int, text: dict[str, Any]) -> dict[str, float]:
    """What the lineage says of the best sub-network of a bin."""
    asked = found[number].asked
    unit = text["loss"]
    losses = sorted(one.loss for one in asked.values())
    return {
        unit: asked[found[number].best].loss,
        f"{unit} of the median sub-network": losses[len(losses) // 2],
        "sub-networks measured": len(asked),
        **{f"search {name}": value for name, value in text["cost"].items()},
    }
