"""Step type `densify`: an ordinary checkpoint out of a factorised one."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.recipes.changing import change_model, counted
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class DensifySettings(Settings):
    """Multiply out the factorised vocabulary rows of a checkpoint, so that plain transformers opens it."""

    source: str = Field(min_length=1)
    """Factorised checkpoint: folder, hub id, `name@revision` or `${step}`."""


@operations.register("densify", settings=DensifySettings)
def densify_step(settings: DensifySettings, folder: Path, runner: Runner) -> None:
    """Make the vocabulary rows of a factorised checkpoint dense again; its outputs stay."""
    from warmstart.vocabulary.factorised_model import densify_model

    change_model("densify", settings, folder, lambda model, path: counted(densify_model(model)))
