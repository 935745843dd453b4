"""Step type `drop`: remove the tokens that a text does not use."""

from __future__ import annotations

from pathlib import Path

from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.vocabulary.settings_forge import DropSettings


@operations.register("drop", settings=DropSettings)
def drop_step(settings: DropSettings, folder: Path, runner: Runner) -> None:
    """Remove the tokens that a text does not use from a tokenizer; `transplant` then takes the rows."""
    from warmstart.vocabulary.forge.drop import drop

    drop(settings, folder / "output")
