"""Step type `transplant`: give a checkpoint a new vocabulary."""

from __future__ import annotations

from pathlib import Path

from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.vocabulary.settings import TransplantSettings


@operations.register("transplant", settings=TransplantSettings)
def transplant_step(settings: TransplantSettings, folder: Path, runner: Runner) -> None:
    """Give a checkpoint a new tokenizer, its rows filled by an initialiser; all other weights are copied."""
    from warmstart.vocabulary.transplant import transplant

    transplant(settings, folder / "output")
