"""Step type `cost`: seconds and peak memory of a transplant."""

from __future__ import annotations

from pathlib import Path

from warmstart.foundation.files import atomic_folder
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.vocabulary.settings import TransplantSettings


class CostSettings(TransplantSettings):
    """A transplant whose time and memory are measured; its checkpoint is thrown away."""


@operations.register("cost", settings=CostSettings)
def cost_step(settings: CostSettings, folder: Path, runner: Runner) -> None:
    """Measure seconds and peak memory of a transplant in a process of its own, into `cost.json`."""
    from warmstart.recipes.cost import measure_cost

    found = measure_cost(TransplantSettings.model_validate(settings.model_dump(exclude_unset=True)))
    with atomic_folder(folder / "output", replace=True) as output:
        (output / "cost.json").write_text(found.model_dump_json(indent=1), encoding="utf-8")
