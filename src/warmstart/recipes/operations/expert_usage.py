"""Step type `expert-usage`: how evenly a mixture uses its experts."""

from __future__ import annotations

from pathlib import Path

from warmstart.recipes.operations import operations
from warmstart.recipes.reading_step import ReadingStep, leave_counts
from warmstart.recipes.runner import Runner


class ExpertUsageSettings(ReadingStep):
    """Which experts the routers of a mixture choose on a text."""


@operations.register("expert-usage", settings=ExpertUsageSettings, tags=("measures",))
def expert_usage_step(settings: ExpertUsageSettings, folder: Path, runner: Runner) -> None:
    """Measure how evenly a mixture uses its experts; the artifact holds `expert-usage.json`.

    `entropy` is 1 when all experts of a layer get the same load; `unused` is the share of experts that were
    never chosen. A dense model counts as one expert, evenly used.
    """
    from warmstart.evaluation.expert_use import expert_use

    leave_counts(settings, expert_use, folder, "expert-usage.json")
