"""Step type `extend`: give a tokenizer new tokens."""

from __future__ import annotations

from pathlib import Path

from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.vocabulary.settings_forge import ExtendSettings


@operations.register("extend", settings=ExtendSettings)
def extend_step(settings: ExtendSettings, folder: Path, runner: Runner) -> None:
    """Give a tokenizer new tokens, from a text or a list; old ids stay, `transplant` makes the rows."""
    from warmstart.vocabulary.forge.extend import extend

    extend(settings, folder / "output")
