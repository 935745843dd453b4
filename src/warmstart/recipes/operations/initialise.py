"""Step type `initialise`: a model with random weights, the start of training from scratch."""

from __future__ import annotations

from pathlib import Path

from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.vocabulary.settings import InitialiseSettings


@operations.register("initialise", settings=InitialiseSettings)
def initialise_step(settings: InitialiseSettings, folder: Path, runner: Runner) -> None:
    """Make a model with random weights for a tokenizer, of given sizes or like another checkpoint."""
    from warmstart.vocabulary.initialise import initialise

    initialise(settings, folder / "output")
