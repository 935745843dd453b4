"""Step type `pareto`: what the sub-networks of a checkpoint are worth, from the smallest to the largest."""

from __future__ import annotations

import json
from pathlib import Path

from warmstart.foundation.files import atomic_folder
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.recipes.searching import SearchingStep


class ParetoStep(SearchingStep):
    """Search the sub-networks of a model for the best of every size; nothing is made."""


@operations.register("pareto", settings=ParetoStep, tags=("measures",))
def pareto_step(settings: ParetoStep, folder: Path, runner: Runner) -> None:
    """Measure the Pareto front of a checkpoint's sub-networks: bits per byte against parameters.

    The artifact is `pareto.json`: `hypervolume` (of bits per byte as a share of 8, and parameters as a share
    of the source's, in [0, 1]; larger is better), `full`, the loss of the whole model, `half`, the lowest
    loss with at most half of the source's parameters (8 where none was measured), and the front itself.
    """
    from warmstart.checkpoint import resolve
    from warmstart.recipes.searching import open_networks
    from warmstart.shape.search.evaluations import WORST
    from warmstart.shape.search.run import report, search

    source = resolve(settings.source, trust_remote_code=settings.trust_remote_code)
    networks = open_networks(settings, source)
    found = search(networks, settings, state=folder / "evaluations.json")
    text = report(networks, found)
    every, whole = text["evaluations"], networks.whole
    numbers = {
        "hypervolume": text["hypervolume"],
        "full": networks.measure(networks.space.full).bpb,
        "half": min([one["bpb"] for one in every if one["parameters"] <= whole / 2], default=WORST),
        "smallest": min(one["parameters"] for one in every),
        "measured": len(every),
    }
    with atomic_folder(folder / "output", replace=True) as output:
        whole_text = json.dumps(numbers | text, indent=1) + "\n"
        (output / "pareto.json").write_text(whole_text, encoding="utf-8")
