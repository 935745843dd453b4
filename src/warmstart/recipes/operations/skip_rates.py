"""Step type `skip-rates`: how many tokens skip routers let through, and what that costs."""

from __future__ import annotations

from pathlib import Path

from warmstart.recipes.operations import operations
from warmstart.recipes.reading_step import ReadingStep, leave_counts
from warmstart.recipes.runner import Runner


class SkipRatesSettings(ReadingStep):
    """How many tokens of a text go through the blocks of a model with skip routers."""


@operations.register("skip-rates", settings=SkipRatesSettings, tags=("measures",))
def skip_rates_step(settings: SkipRatesSettings, folder: Path, runner: Runner) -> None:
    """Measure the share of tokens that go through blocks, and of operations; into `skip-rates.json`.

    A model without routers lets every token through.
    """
    from warmstart.evaluation.skip_rates import skip_rates

    leave_counts(settings, skip_rates, folder, "skip-rates.json")
