"""Step type `source`: a small checkpoint that our own recipes train."""

from __future__ import annotations

from pathlib import Path

from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.recipes.sources import build_source


class SourceSettings(Settings):
    """A checkpoint that one of our own recipes trains, with changes where wanted."""

    name: str
    """Named source, such as `tiny-en` or `captions-en`."""
    overrides: list[str] = []
    """Changes of its recipe as `step.key=value`, such as `train.max_tokens=20000`."""


@operations.register("source", settings=SourceSettings, tags=("pointer",))
def source_step(settings: SourceSettings, folder: Path, runner: Runner) -> Path:
    """Train a small source checkpoint by its own recipe, or take it from the cache."""
    return build_source(settings.name, runner, settings.overrides)
