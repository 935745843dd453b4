"""Step type `unwrap`: an ordinary checkpoint out of one with wrapped linear maps."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.recipes.changing import change_model, counted
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class UnwrapSettings(Settings):
    """Multiply out the wrapped linear maps of a checkpoint, so that plain transformers opens it."""

    source: str = Field(min_length=1)
    """Wrapped checkpoint: folder, hub id, `name@revision` or `${step}`."""


@operations.register("unwrap", settings=UnwrapSettings)
def unwrap_step(settings: UnwrapSettings, folder: Path, runner: Runner) -> None:
    """Make the linear maps of a wrapped checkpoint dense again; its outputs stay."""
    from warmstart.shape.wrap._model import unwrap_model

    change_model("unwrap", settings, folder, lambda model, path: counted(unwrap_model(model)))
