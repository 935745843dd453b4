"""Step type `tokenizer`: train a tokenizer on text."""

from __future__ import annotations

from pathlib import Path

from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.vocabulary.settings import TokenizerSettings


@operations.register("tokenizer", settings=TokenizerSettings)
def tokenizer(settings: TokenizerSettings, folder: Path, runner: Runner) -> None:
    """Train a tokenizer on text, in the manner of another one where `like` names it."""
    from warmstart.vocabulary.forge import forge

    forge(settings, folder / "output")
