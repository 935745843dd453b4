"""Step type `pareto`: what the sub-networks of a checkpoint are worth, from the smallest to the largest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from warmstart.foundation.files import atomic_folder
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.recipes.searching import SearchingStep


class ParetoStep(SearchingStep):
    """Search the sub-networks of a model for the best of every size; nothing is made."""

    test_split: Literal["valid", "test"] = "test"
    """Part of the corpus on which the front is measured once more: what was chosen for its loss on one text
    is worth what it is on another."""


@operations.register("pareto", settings=ParetoStep, tags=("measures",))
def pareto_step(settings: ParetoStep, folder: Path, runner: Runner) -> None:
    """Measure the Pareto front of a checkpoint's sub-networks: bits per byte against parameters.

    The front is searched on `eval_split`, and its members are measured again on `test_split`. The artifact is
    `pareto.json`. Of the second text: `hypervolume` (of bits per byte as a share of 8, and parameters as a
    share of the source's, in [0, 1]; larger is better), `full`, the loss of the whole model, `half`, the
    lowest loss of the front with at most half of the source's parameters (8 where it has none), and
    `tested`, the front itself. Of the first: `searched_hypervolume`, and everything that a search reports.
    """
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus
    from warmstart.recipes.searching import open_networks
    from warmstart.recipes.training_step import held_out_sample
    from warmstart.shape.search.evaluations import summary
    from warmstart.shape.search.run import front_of, report, search

    source = resolve(settings.source, trust_remote_code=settings.trust_remote_code)
    networks = open_networks(settings, source)
    found = search(networks, settings, state=folder / "evaluations.json")
    whole, worst = networks.whole, networks.judge.worst
    documents = open_corpus(settings.corpus).documents(settings.test_split)
    texts = held_out_sample(documents, settings.eval_max_bytes)
    tested = [networks.measure(sizes, texts) for sizes in front_of(networks, found)]
    text = report(networks, found)
    numbers = {
        "hypervolume": summary(tested, whole, worst)["hypervolume"],
        "full": networks.measure(networks.space.full, texts).loss,
        "half": min([one.loss for one in tested if one.parameters <= whole / 2], default=worst),
        "smallest": min(one.parameters for one in tested),
        "measured": len(text["evaluations"]),
        "searched_hypervolume": text.pop("hypervolume"),
        "tested": [one.model_dump() for one in tested],
    }
    with atomic_folder(folder / "output", replace=True) as output:
        whole_text = json.dumps(numbers | text, indent=1) + "\n"
        (output / "pareto.json").write_text(whole_text, encoding="utf-8")
